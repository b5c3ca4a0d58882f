"""A position that was found, to be judged at a glance: the whole scan above, the crop below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from jawloc.geometry import Triple
from jawloc.reporting.figures.layout import VIEWS, View, scale_bar_mm
from jawloc.reporting.figures.style import (
    DOTS_PER_INCH,
    GREEN,
    ORANGE,
    ROUND,
    SKY,
    STYLE,
    VERMILION,
    YELLOW,
    Style,
)
from jawloc.scans.orthogonal_slices import OrthogonalSlices, orthogonal_slices

WIDTH, COLUMN = 12.0, 4.0  # inches
WIDEST, TALLEST = 3.0, 5.5  # inches of a panel
LEFT, ABOVE, BELOW = 0.75, 0.45, 0.6  # inches of room for a panel's labels
LINE = 0.26  # inches
OUTLINE = [withStroke(linewidth=3, foreground="black")]
POINT: Style = {"marker": "+", "markersize": 16, "markeredgewidth": 2, "color": YELLOW}
SPREAD: Style = {"fill": False, "edgecolor": SKY, "linewidth": 1.8, "path_effects": OUTLINE}
RADIUS: Style = SPREAD | {"edgecolor": GREEN, "linestyle": (0, (5, 2))}
LEAST_CLOSE = 12.0  # full-size voxels from the middle to the edge of the closest view
TRUTH: Style = {
    "marker": "x",
    "markersize": 13,
    "markeredgewidth": 2.5,
    "color": VERMILION,
    "path_effects": [withStroke(linewidth=4, foreground="white")],
}
BOX: Style = {"fill": False, "edgecolor": ORANGE, "linestyle": "--", "linewidth": 1.8}


@dataclass(frozen=True)
class Panel:
    """Grey values that cover a box of the scan, at whatever resolution.

    Attributes
    ----------
    image : array, shape (z, y, x)
    start, stop : (z, y, x) in voxels of the full-size scan
        The box, from its first voxel to the one after its last.
    """

    image: np.ndarray
    start: Sequence[float]
    stop: Sequence[float]

    @property
    def size(self) -> np.ndarray:
        """Return the box's size (z, y, x) in full-size voxels."""
        return np.asarray(self.stop, float) - np.asarray(self.start, float)

    def planes(self, point: Sequence[float]) -> OrthogonalSlices:
        """Cut three planes through the voxels that hold a point of the full-size scan."""
        ratio = np.asarray(self.image.shape) / self.size
        inside = (np.asarray(point) + 0.5 - np.asarray(self.start)) * ratio - 0.5
        return orthogonal_slices(self.image, inside)


def plot_location(
    scan: Panel,
    crop: Panel,
    *,
    point: Sequence[float],
    spread: Sequence[float],
    title: Sequence[str],
    spacing_mm_zyx: Triple | None = None,
    radius: float | None = None,
    truth: Sequence[float] | None = None,
) -> Figure:
    """Show three slices through a position, of the whole scan and of the crop round it.

    Where the truth is known, a third row shows both so closely that they can be told apart.

    Parameters
    ----------
    scan, crop : Panel
        The scan may be downsampled; all axes are in voxels of the full-size scan.
    point : (z, y, x) in full-size voxels
    spread : three lengths (z, y, x) in full-size voxels
        Half axes of the ellipse that is drawn round the point.
    title : sequence of str, a line each
    spacing_mm_zyx : tuple of float or None
        Gives the panels their aspect and a scale bar in mm; None: one in voxels.
    radius : float or None
        Of the ball that should hold the truth, in full-size voxels.
    truth : (z, y, x) in full-size voxels, or None
        Marked too, whether it lies in these slices or not.
    """
    unit = np.asarray(spacing_mm_zyx or (1.0, 1.0, 1.0))
    rows = [
        (scan, _round_both(scan, crop)),
        (crop, (np.asarray(crop.start, float), np.asarray(crop.stop, float))),
    ]
    if truth is not None:
        rows.append(_close_up(scan, crop, point, truth, radius))
    heights = [_height((stop - start) * unit) for _, (start, stop) in rows]
    head = 0.2 + LINE * len(title)
    tall = head + sum(heights) + len(rows) * (ABOVE + BELOW) + LINE + 0.2
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, tall), dpi=DOTS_PER_INCH)
        _write_title(figure, title)
        bottom = tall - head
        for row, ((panel, frame), height) in enumerate(zip(rows, heights, strict=True)):
            bottom -= ABOVE + height
            for column, view in enumerate(VIEWS):
                wide, high = _inches((frame[1] - frame[0]) * unit, view)
                x, y = LEFT + COLUMN * column + (WIDEST - wide) / 2, bottom + height - high
                box = (x / WIDTH, y / tall, wide / WIDTH, high / tall)
                axes = figure.add_axes(box, facecolor="black")
                _draw_grey(axes, view, panel, point, unit)
                _show(axes, view, *frame)
                if row == 0:
                    _draw_box(axes, view, crop)
                _draw_point(axes, view, point, spread, radius, close=row > 0)
                if truth is not None:
                    axes.plot(truth[view.columns], truth[view.rows], linestyle="none", **TRUTH)
                _draw_scale_bar(axes, (frame[1] - frame[0])[view.columns], view, spacing_mm_zyx)
            bottom -= BELOW
        marks = _legend(radius is not None, truth is not None)
        figure.legend(
            handles=marks, loc="lower left", ncols=5, bbox_to_anchor=(0.02, 0.0), columnspacing=1.2
        )
    return figure


def _write_title(figure: Figure, title: Sequence[str]) -> None:
    for row, line in enumerate(title):
        style: Style = {"size": 13, "weight": "bold"} if row == 0 else {"size": 12}
        y = 1 - (0.15 + LINE * row) / figure.get_figheight()
        figure.text(0.02, y, line, va="top", parse_math=False, **style)


def _round_both(scan: Panel, crop: Panel) -> tuple[np.ndarray, np.ndarray]:
    """Return the box round the scan and a crop that may reach out of it."""
    return np.minimum(scan.start, crop.start), np.maximum(scan.stop, crop.stop)


def _close_up(
    scan: Panel,
    crop: Panel,
    point: Sequence[float],
    truth: Sequence[float],
    radius: float | None,
) -> tuple[Panel, tuple[np.ndarray, np.ndarray]]:
    """Return what shows a position and the truth closely, and which box of it."""
    ends = np.array([point, truth], float)
    reach = max(1.2 * float(np.ptp(ends, axis=0).max()), 1.3 * (radius or 0.0), LEAST_CLOSE)
    middle = ends.mean(axis=0)
    start, stop = middle - reach, middle + reach
    whole = bool(np.all(start >= crop.start) and np.all(stop <= crop.stop))
    return (crop if whole else scan), (start, stop)


def _show(axes: Axes, view: View, start: np.ndarray, stop: np.ndarray) -> None:
    """Show this box; the fish stands upright with the head at large z, while y points down."""
    axes.set_xlim(start[view.columns] - 0.5, stop[view.columns] - 0.5)
    low, high = start[view.rows] - 0.5, stop[view.rows] - 0.5
    axes.set_ylim(*((low, high) if view.rows == 0 else (high, low)))


def _inches(extent_zyx: np.ndarray, view: View) -> tuple[float, float]:
    """Return a panel's width and height: as large as its column and row allow."""
    wide, high = extent_zyx[view.columns], extent_zyx[view.rows]
    scale = min(WIDEST / wide, TALLEST / high)
    return wide * scale, high * scale


def _height(extent_zyx: np.ndarray) -> float:
    return max(_inches(extent_zyx, view)[1] for view in VIEWS)


def _draw_grey(
    axes: Axes, view: View, panel: Panel, point: Sequence[float], unit: np.ndarray
) -> None:
    planes = panel.planes(point)
    values = np.concatenate([v.cut(planes).ravel()[::5] for v in VIEWS]).astype(np.float32)
    low, high = np.nanpercentile(values, (1, 99.5))
    left, top = panel.start[view.columns] - 0.5, panel.start[view.rows] - 0.5
    right, bottom = panel.stop[view.columns] - 0.5, panel.stop[view.rows] - 0.5
    axes.imshow(
        view.cut(planes).astype(np.float32),
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        extent=(left, right, bottom, top),
        aspect=unit[view.rows] / unit[view.columns],
    )
    axes.set_autoscale_on(False)
    axes.set_title(f"{view.name}, {view.label('normal')} = {point[view.normal]:.1f}")
    axes.set_xlabel(f"{view.label('columns')} (voxels)")
    axes.set_ylabel(f"{view.label('rows')} (voxels)", labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND))


def _draw_box(axes: Axes, view: View, crop: Panel) -> None:
    left, top = crop.start[view.columns] - 0.5, crop.start[view.rows] - 0.5
    size = crop.size
    corner, wide, high = (left, top), size[view.columns], size[view.rows]
    axes.add_patch(Rectangle(corner, wide, high, **BOX))


def _draw_point(
    axes: Axes,
    view: View,
    point: Sequence[float],
    spread: Sequence[float],
    radius: float | None,
    *,
    close: bool,
) -> None:
    x, y = point[view.columns], point[view.rows]
    style = POINT if close else POINT | {"markersize": 9, "markeredgewidth": 1.5}
    axes.plot(x, y, linestyle="none", path_effects=OUTLINE, **style)
    width, height = 2 * spread[view.columns], 2 * spread[view.rows]
    style = SPREAD if close else SPREAD | {"linewidth": 1.2}
    axes.add_patch(Ellipse((x, y), width, height, **style))
    if radius is not None:
        style = RADIUS if close else RADIUS | {"linewidth": 1.2}
        axes.add_patch(Ellipse((x, y), 2 * radius, 2 * radius, **style))


def _draw_scale_bar(axes: Axes, voxels: float, view: View, spacing: Triple | None) -> None:
    width = voxels if spacing is None else voxels * spacing[view.columns]
    length = scale_bar_mm(width)
    inches = axes.get_window_extent().height / DOTS_PER_INCH
    style: Style = {"transform": axes.transAxes, "color": "white", "path_effects": OUTLINE}
    ends = [0.06, 0.06 + length / width]
    axes.plot(ends, [0.15 / inches] * 2, linewidth=4, solid_capstyle="butt", **style)
    text = f"{length:g} {'voxels' if spacing is None else 'mm'}"
    axes.text(0.06, 0.22 / inches, text, va="bottom", **style)


def _legend(with_radius: bool, with_truth: bool) -> list[Line2D | Patch]:
    true = Line2D([], [], linestyle="none", label="mask's centroid", **TRUTH)
    return [
        Line2D([], [], linestyle="none", label="position", path_effects=OUTLINE, **POINT),
        *([true] if with_truth else []),
        Patch(label="spread", **SPREAD),
        *([Patch(label="stated radius", **RADIUS)] if with_radius else []),
        Patch(label="crop (shown below)", **BOX),
    ]
