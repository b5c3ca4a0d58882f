"""A predicted position in the whole scan (above) and in the crop around it (below)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch
from matplotlib.patheffects import withStroke

from jawloc.geometry import Triple
from jawloc.reporting.figures.layout import TITLE_LINE, VIEWS, View
from jawloc.reporting.figures.panels import (
    BOX,
    OUTLINE,
    draw_box,
    draw_scale_bar,
    draw_slice,
    draw_title,
    show_box,
)
from jawloc.reporting.figures.style import (
    DOTS_PER_INCH,
    GREEN,
    SKY,
    STYLE,
    VERMILION,
    WIDTH,
    YELLOW,
    Style,
)
from jawloc.scans.orthogonal_slices import OrthogonalSlices, orthogonal_slices

COLUMN = 4.0  # inches
WIDEST, TALLEST = 3.0, 5.5  # inches of a panel
LEFT, ABOVE, BELOW = 0.75, 0.45, 0.6  # inches of room for a panel's labels
LEGEND = 0.46  # inches
POINT: Style = {"marker": "+", "color": YELLOW, "linestyle": "none", "path_effects": OUTLINE}
SPREAD: Style = {"fill": False, "edgecolor": SKY, "path_effects": OUTLINE}
RADIUS: Style = SPREAD | {"edgecolor": GREEN, "linestyle": (0, (5, 2))}
TRUTH: Style = {
    "marker": "x",
    "markersize": 13,
    "markeredgewidth": 2.5,
    "color": VERMILION,
    "linestyle": "none",
    "path_effects": [withStroke(linewidth=4, foreground="white")],
}
LEAST_CLOSE = 12.0  # full-size voxels from the middle to the edge of the closest view

Frame = tuple[np.ndarray, np.ndarray]  # (start, stop) of what a row shows, in full-size voxels


@dataclass(frozen=True)
class Panel:
    """An image of a box of the scan, at any resolution.

    Attributes
    ----------
    image : array, shape (z, y, x)
    start, stop : (z, y, x) in voxels of the full-size scan
        The box, from its first voxel to the one after its last.
    """

    image: np.ndarray
    start: Sequence[float]
    stop: Sequence[float]

    def planes(self, point: Sequence[float]) -> OrthogonalSlices:
        """Cut three planes through the voxels that hold a point of the full-size scan."""
        ratio = np.asarray(self.image.shape) / np.subtract(self.stop, self.start)
        return orthogonal_slices(self.image, (np.add(point, 0.5) - self.start) * ratio - 0.5)


@rc_context(STYLE)
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
    """Show three slices through a position, of the whole scan and of the crop around it.

    Where the truth is known, a third row shows both enlarged. The spread (z, y, x) gives the half
    axes of an ellipse, the radius a circle. All are in voxels of the full-size scan.
    """
    unit = np.asarray(spacing_mm_zyx or (1.0, 1.0, 1.0))
    rows = _rows(scan, crop, point, radius, truth)
    heights = [max(_inches(frame, unit, view)[1] for view in VIEWS) for _, frame in rows]
    bottom = sum(heights) + len(rows) * (ABOVE + BELOW) + LEGEND
    tall = bottom + 0.2 + TITLE_LINE * len(title)
    figure = Figure(figsize=(WIDTH, tall), dpi=DOTS_PER_INCH)
    draw_title(figure, title)
    for row, ((panel, frame), height) in enumerate(zip(rows, heights, strict=True)):
        bottom -= ABOVE + height
        for column, view in enumerate(VIEWS):
            wide, high = _inches(frame, unit, view)
            x, y = LEFT + COLUMN * column + (WIDEST - wide) / 2, bottom + height - high
            place = (x / WIDTH, y / tall, wide / WIDTH, high / tall)
            axes = figure.add_axes(place, facecolor="black")
            _draw_panel(axes, view, panel, point, spacing_mm_zyx, frame)
            if row == 0:
                draw_box(axes, view, (crop.start, crop.stop))
            _draw_point(axes, view, point, spread, radius, truth, close=row > 0)
        bottom -= BELOW
    _draw_legend(figure, radius is not None, truth is not None)
    return figure


def _rows(
    scan: Panel,
    crop: Panel,
    point: Sequence[float],
    radius: float | None,
    truth: Sequence[float] | None,
) -> list[tuple[Panel, Frame]]:
    """Return the image and the frame of each row; the crop may reach out of the scan."""
    whole = (np.minimum(scan.start, crop.start), np.maximum(scan.stop, crop.stop))
    rows = [(scan, whole), (crop, (np.asarray(crop.start, float), np.asarray(crop.stop, float)))]
    return rows if truth is None else [*rows, _close_up(scan, crop, point, truth, radius)]


def _close_up(
    scan: Panel,
    crop: Panel,
    point: Sequence[float],
    truth: Sequence[float],
    radius: float | None,
) -> tuple[Panel, Frame]:
    """Return a frame that holds position, truth and radius, and an image that covers it."""
    ends = np.array([point, truth], float)
    reach = max(1.2 * float(np.ptp(ends, axis=0).max()), 1.3 * (radius or 0.0), LEAST_CLOSE)
    middle = ends.mean(axis=0)
    start, stop = middle - reach, middle + reach
    whole = bool(np.all(start >= crop.start) and np.all(stop <= crop.stop))
    return (crop if whole else scan), (start, stop)


def _inches(frame: Frame, unit: np.ndarray, view: View) -> tuple[float, float]:
    """Return a panel's width and height: as large as its column and row allow."""
    extent = (frame[1] - frame[0]) * unit
    wide, high = extent[view.columns], extent[view.rows]
    scale = min(WIDEST / wide, TALLEST / high)
    return wide * scale, high * scale


def _draw_panel(
    axes: Axes,
    view: View,
    panel: Panel,
    point: Sequence[float],
    spacing: Triple | None,
    frame: Frame,
) -> None:
    box = (panel.start, panel.stop)
    draw_slice(axes, view, panel.planes(point), spacing, box, f"{point[view.normal]:.1f}")
    show_box(axes, view, frame)
    draw_scale_bar(axes, (frame[1] - frame[0])[view.columns], view, spacing)


def _draw_point(
    axes: Axes,
    view: View,
    point: Sequence[float],
    spread: Sequence[float],
    radius: float | None,
    truth: Sequence[float] | None,
    *,
    close: bool,
) -> None:
    x, y = point[view.columns], point[view.rows]
    size, line = (16, 1.8) if close else (9, 1.2)
    axes.plot(x, y, markersize=size, markeredgewidth=2 if close else 1.5, **POINT)
    width, height = 2 * spread[view.columns], 2 * spread[view.rows]
    axes.add_patch(Ellipse((x, y), width, height, linewidth=line, **SPREAD))
    if radius is not None:
        axes.add_patch(Ellipse((x, y), 2 * radius, 2 * radius, linewidth=line, **RADIUS))
    if truth is not None:
        axes.plot(truth[view.columns], truth[view.rows], **TRUTH)


def _draw_legend(figure: Figure, with_radius: bool, with_truth: bool) -> None:
    point = POINT | {"markersize": 16, "markeredgewidth": 2}
    handles = [
        Line2D([], [], label="predicted position", **point),
        *([Line2D([], [], label="true position", **TRUTH)] * with_truth),
        Patch(label="spread", linewidth=1.8, **SPREAD),
        *([Patch(label="stated radius", linewidth=1.8, **RADIUS)] * with_radius),
        Patch(label="crop (shown below)", **BOX),
    ]
    figure.legend(
        handles=handles, loc="lower left", ncols=5, bbox_to_anchor=(0.02, 0.0), columnspacing=1.2
    )
