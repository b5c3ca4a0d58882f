"""A predicted position: the whole scan from three sides (above), slices of the crop (below)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, Patch
from matplotlib.patheffects import withStroke

from jawloc.reporting.figures import panels
from jawloc.reporting.figures.fitted_text import TITLE_LINE, draw_title, fit_title
from jawloc.reporting.figures.panels import BOX, OUTLINE, VIEWS, Frame, Point, View
from jawloc.reporting.figures.style import DOTS_PER_INCH, STYLE, WIDTH, Colour, Style
from jawloc.scans.orthogonal_slices import OrthogonalSlices, orthogonal_slices, silhouettes

if TYPE_CHECKING:  # would load torch, which no picture needs
    from jawloc.geometry import Grid
    from jawloc.inference.crop import CropBox
    from jawloc.inference.evaluate_scan import ScanError
    from jawloc.inference.locator import Localisation

COLUMN = 4.0  # inches
WIDEST, TALLEST = 3.0, 5.5  # inches of a panel
LEFT, ABOVE, BELOW = 0.75, 0.45, 0.6  # inches of room for a panel's labels
LEGEND = 0.46  # inches
POINT: Style = {"marker": "+", "color": Colour.YELLOW, "linestyle": "none", "path_effects": OUTLINE}
SPREAD: Style = {"fill": False, "edgecolor": Colour.SKY, "path_effects": OUTLINE}
RADIUS: Style = SPREAD | {"edgecolor": Colour.GREEN, "linestyle": (0, (5, 2))}
TRUTH: Style = {
    "marker": "x",
    "markersize": 13,
    "markeredgewidth": 2.5,
    "color": Colour.VERMILION,
    "linestyle": "none",
    "path_effects": [withStroke(linewidth=4, foreground="white")],
}
LEAST_CLOSE = 12.0  # full-size voxels from the middle to the edge of the closest view


Panel = tuple[OrthogonalSlices, Frame]  # three planes, of this box


@rc_context(STYLE)
def location_picture(
    found: Localisation,
    grid: Grid,
    image: np.ndarray,
    crop: np.ndarray,
    window: CropBox,
    error: ScanError | None = None,
    projections: OrthogonalSlices | None = None,
) -> Figure:
    """Show a position in maximum projections of the whole scan and in three slices of the crop.

    In the projections a wrong head is seen at a glance. Where the truth is known (`error`), a third
    row shows both enlarged. All axes are in voxels of the full-size scan, as `grid` is; `image`
    (z, y, x) is the downsampled scan that the network saw, `projections` its maxima along each
    axis where they are known, `crop` (z, y, x) the voxels in the window.
    """
    spacing = grid.spacing_mm_zyx
    start, point = np.asarray(window.start_zyx), found.point_voxels
    cropped = _cut(crop, (start, start + window.size_zyx), point)
    whole = projections or silhouettes(image), ((0, 0, 0), grid.shape_zyx)
    rows = _rows(whole, cropped)
    if error is not None:
        scan = _cut(image, whole[1], point)
        rows.append(_close_view(found, scan, cropped, error))
    title = fit_title(_title(found, grid, window, error))
    sizes = [[_inches(frame, view, spacing) for view in VIEWS] for _, frame in rows]
    heights = [max(high for _, high in row) for row in sizes]
    bottom = sum(heights) + len(rows) * (ABOVE + BELOW) + LEGEND
    tall = bottom + 0.2 + TITLE_LINE * len(title)
    figure = Figure(figsize=(WIDTH, tall), dpi=DOTS_PER_INCH)
    draw_title(figure, title)
    for row, ((planes, box), frame) in enumerate(rows):
        bottom -= ABOVE + heights[row]
        for column, (view, (wide, high)) in enumerate(zip(VIEWS, sizes[row], strict=True)):
            x, y = LEFT + COLUMN * column + (WIDEST - wide) / 2, bottom + heights[row] - high
            place = (x / WIDTH, y / tall, wide / WIDTH, high / tall)
            axes = figure.add_axes(place, facecolor="black")
            what = view.at(f"{point[view.normal]:.1f}")
            if row == 0:
                what = f"maximum along {'zyx'[view.normal]}"
            panels.draw_slice(axes, view, planes, what, spacing, box, frame)
            panels.draw_scale_bar(axes, np.subtract(*frame[::-1])[view.columns], view, spacing)
            if row == 0:
                panels.draw_box(axes, view, rows[1][1])
            _draw_points(axes, view, found, error, close=row > 0)
        bottom -= BELOW
    _draw_legend(figure, found.radius_voxels is not None, error is not None)
    return figure


def _cut(image: np.ndarray, box: Frame, point: Point) -> Panel:
    """Cut the image of a box, at any resolution, through the voxels that hold a position."""
    ratio = np.asarray(image.shape) / np.subtract(box[1], box[0])
    return orthogonal_slices(image, (np.add(point, 0.5) - box[0]) * ratio - 0.5), box


def _rows(scan: Panel, crop: Panel) -> list[tuple[Panel, Frame]]:
    """Return each row's panel and what of it is shown; the crop may reach out of the scan."""
    start, stop = crop[1]
    whole = (np.minimum(scan[1][0], start), np.maximum(scan[1][1], stop))
    return [(scan, whole), (crop, crop[1])]


def _close_view(
    found: Localisation, scan: Panel, crop: Panel, error: ScanError
) -> tuple[Panel, Frame]:
    """Return a row that shows position, truth and radius, of the crop if it holds them all."""
    start, stop = crop[1]
    ends = np.array([found.point_voxels, error.truth_voxels], float)
    radius = found.radius_voxels or 0.0
    reach = max(1.2 * float(np.ptp(ends, axis=0).max()), 1.3 * radius, LEAST_CLOSE)
    low, high = ends.mean(axis=0) - reach, ends.mean(axis=0) + reach
    inside = bool(np.all(low >= start) and np.all(high <= stop))
    return crop if inside else scan, (low, high)


def _inches(frame: Frame, view: View, spacing: Point | None) -> tuple[float, float]:
    """Return a panel's width and height: as large as its column and row allow."""
    extent = np.subtract(*frame[::-1]) * (spacing or (1.0, 1.0, 1.0))
    wide, high = extent[view.columns], extent[view.rows]
    scale = min(WIDEST / wide, TALLEST / high)
    return wide * scale, high * scale


def _draw_points(
    axes: Axes, view: View, found: Localisation, error: ScanError | None, *, close: bool
) -> None:
    x, y = (found.point_voxels[axis] for axis in (view.columns, view.rows))
    size, line = (16, 1.8) if close else (9, 1.2)
    axes.plot(x, y, markersize=size, markeredgewidth=2 if close else 1.5, **POINT)
    for radius, style in ((found.spread_voxels, SPREAD), (found.radius_voxels, RADIUS)):
        if radius is not None:
            axes.add_patch(Ellipse((x, y), 2 * radius, 2 * radius, linewidth=line, **style))
    if error is not None:
        axes.plot(error.truth_voxels[view.columns], error.truth_voxels[view.rows], **TRUTH)


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


def describe_error(error: ScanError) -> str:
    """Return an error in every unit that is known, as a text."""
    text = (
        f"{error.error_downsampled_voxels:.2f} downsampled voxels, "
        f"{error.error_full_size_voxels:.2f} full-size voxels"
    )
    return text if error.error_mm is None else f"{text}, {error.error_mm:.3f} mm"


def _title(found: Localisation, grid: Grid, window: CropBox, error: ScanError | None) -> list[str]:
    position = f"{', '.join(f'{v:.1f}' for v in found.point_voxels)} voxels"
    if found.point_mm is not None:
        position += f" = {', '.join(f'{v:.3f}' for v in found.point_mm)} mm"
    radius = "radius unknown (needs more test scans)"
    if found.radius_voxels is not None:
        confidence = 100 * (found.confidence or 0)
        radius = f"radius {found.radius_voxels:.1f} voxels ({confidence:.0f} %)"
    spacing = "unknown"
    if grid.spacing_mm_zyx is not None:
        spacing = f"{_times(f'{v:.3g}' for v in grid.spacing_mm_zyx)} mm"
    status = ": ".join(filter(None, (found.status, found.reason)))
    lines = [
        f"{found.object_name} in {found.scan_id} ({status})",
        f"position (z, y, x) {position}; spread {found.spread_voxels:.1f} voxels, {radius}",
        f"scan of {_times(grid.shape_zyx)} voxels, spacing {spacing}; crop of "
        f"{_times(window.size_zyx)} voxels, {window.fit}",
    ]
    return lines if error is None else [*lines, f"error {describe_error(error)}"]


def _times(numbers: Iterable[object]) -> str:
    return " × ".join(str(n) for n in numbers)
