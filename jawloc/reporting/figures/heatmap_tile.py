"""A square picture for MLflow's image grid: the target heatmap, and beside it the predicted one.

The grid shows a picture at most 256 pixels wide, in a square whose lower part the run's params may
push out of the tile. So its letters are large, its panels few, the coronal view comes first, and
the text last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jawloc.geometry import Triple
from jawloc.reporting.figures.heatmap import draw_heatmap
from jawloc.reporting.figures.panels import VIEWS, Point, View
from jawloc.reporting.figures.style import DOTS_PER_INCH, Colour, Style
from jawloc.scans.orthogonal_slices import OrthogonalSlices, orthogonal_slices, silhouettes

SIDE = 8.0  # inches
LINE = 0.05  # of the side, between lines of text
LETTERS = 22  # points: 8 pixels high in a thumbnail
SHOWN = (VIEWS[1], VIEWS[0])  # coronal above axial


def plot_heatmap_tile(
    image: np.ndarray,
    target: np.ndarray,
    predicted: np.ndarray | None,
    *,
    centre: Point,
    stride: int,
    title: Sequence[str],
    stage: str = "",
    points: Mapping[str, Point],
    spacing_mm_zyx: Triple | None = None,
) -> Figure:
    """Show two views of the scan round `centre` under the target, and under the prediction.

    Parameters
    ----------
    image : (z, y, x), the downsampled scan
    target, predicted : (z, y, x) of the heatmap grid, whose voxels cover `stride` image voxels; the
        highest values along the line of sight are shown, on the target's scale, with a line where
        they are half of its highest. Without a prediction, its panels show the scan alone.
    title : lines of about 40 characters, below the panels
    stage : name of the stage whose heatmaps these are, if there are several
    points : (z, y, x) in voxels; those with "predict" in their name are marked on the right only
    """
    planes, spacing = orthogonal_slices(image, centre), spacing_mm_zyx or (1.0, 1.0, 1.0)
    figure = Figure(figsize=(SIDE, SIDE), dpi=DOTS_PER_INCH)
    for row, line in enumerate(title):
        low = 0.015 + LINE * (len(title) - 1 - row)
        figure.text(0.02, low, line, va="bottom", size=LETTERS, parse_math=False)
    top = 0.985 - LINE
    size = (0.475, (top - 0.02 - LINE * len(title)) / len(SHOWN) - 0.01)
    for column, (name, heat) in enumerate((("target", target), ("predicted", predicted))):
        left = 0.015 + column * 0.495
        figure.text(
            left, top + 0.008, f"{stage} {name}".strip(), va="bottom", size=LETTERS, weight="bold"
        )
        seen = None if heat is None else silhouettes(heat)
        marks = {n: p for n, p in points.items() if column or "predict" not in n}
        for row, view in enumerate(SHOWN):
            axes = figure.add_axes((left, top - (row + 1) * (size[1] + 0.01), *size))
            _draw(axes, view, planes, seen, silhouettes(target), stride, spacing)
            _look_round(axes, view, planes.shape_zyx, centre, spacing)
            _mark(axes, view, marks)
    return figure


def _draw(
    axes: Axes,
    view: View,
    planes: OrthogonalSlices,
    heat: OrthogonalSlices | None,
    target: OrthogonalSlices,
    stride: int,
    spacing: Triple,
) -> None:
    grey = view.cut(planes)
    low, high = np.percentile(grey, (1, 99.5))
    aspect = spacing[view.rows] / spacing[view.columns]
    axes.imshow(grey, cmap="gray", vmin=low, vmax=max(high, low + 1e-9), aspect=aspect)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_facecolor("black")
    if heat is not None:
        draw_heatmap(axes, view, heat, np.full(3, stride), scale=target)


def _look_round(
    axes: Axes, view: View, shape: Sequence[int], centre: Point, spacing: Triple
) -> None:
    """Limit the axes to as much round the centre as the scan is wide; z points up."""
    widest = max(shape[1] * spacing[1], shape[2] * spacing[2])
    limits = []
    for axis in (view.columns, view.rows):
        half = min(widest / spacing[axis], shape[axis]) / 2
        middle = float(np.clip(centre[axis], half - 0.5, shape[axis] - 0.5 - half))
        limits.append((middle - half, middle + half))
    axes.set_xlim(*limits[0])
    axes.set_ylim(*(limits[1] if view.rows == 0 else limits[1][::-1]))


def _mark(axes: Axes, view: View, points: Mapping[str, Point]) -> None:
    for name, point in points.items():
        predicted = "predict" in name
        style: Style = {"marker": "+" if predicted else "o", "markersize": 24}
        style |= {"color": Colour.YELLOW if predicted else Colour.SKY, "markeredgewidth": 3}
        style |= {"markerfacecolor": "none", "linestyle": "none"}
        axes.plot(point[view.columns], point[view.rows], **style)
