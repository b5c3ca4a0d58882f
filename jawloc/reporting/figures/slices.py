"""Slices of scans with what is known about them: points, masks, heatmaps, windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from jawloc.geometry import Triple
from jawloc.reporting.figures import panels
from jawloc.reporting.figures.fitted_text import TITLE_LINE, draw_title, fit_label, fit_title
from jawloc.reporting.figures.heatmap import Box, draw_colour_bar, draw_heatmap
from jawloc.reporting.figures.panels import BOX, OUTLINE, VIEWS, Frame, Point, View
from jawloc.reporting.figures.style import DOTS_PER_INCH, STYLE, WIDTH, Colour, Style
from jawloc.scans.orthogonal_slices import OrthogonalSlices, orthogonal_slices, silhouettes

Volume = np.ndarray | OrthogonalSlices


TALLEST_PANEL = 7.5  # inches
LEGEND_LINE, COLOUR_BAR = 0.28, 1.0  # inches of height; the bar's with its numbers and label
LEGEND_HANDLE = 0.5  # inches before a label
LEFT, RIGHT, BOTTOM, GAP = 0.8, 0.3, 0.65, 0.9  # inches; room for tick and axis labels
PANEL_TITLE = 0.6  # inches
JAW_RED = "#FF2A2A"
# the markers of true points, and of predicted ones
RINGS = [*zip("osD^vh", ("SKY", "PURPLE", "GREEN", "YELLOW", "ORANGE", "VERMILION"), strict=True)]
CROSSES = [*zip("+x1234", ("YELLOW", "ORANGE", "VERMILION", "SKY", "PURPLE", "GREEN"), strict=True)]


@rc_context(STYLE)
def plot_slices(
    image: Volume,
    *,
    centre: Point,
    title: str,
    points: Mapping[str, Point] | None = None,
    spacing_mm_zyx: Triple | None = None,
    mask: Volume | None = None,
    mask_label: str = "jaw mask",
    heatmap: Volume | None = None,
    heatmap_stride: float | Triple = 1.0,
    heatmap_label: str = "probability per voxel",
    window: Frame | None = None,
) -> Figure:
    """Show three orthogonal slices through the voxel at `centre`, with what is known about them.

    Points, (z, y, x) in voxels, are crosses where "predict" is in their name, else rings; heatmap
    voxels cover `heatmap_stride` image voxels. Without spacing, voxels are cubes, without a scale.
    """
    base, stride = _as_planes(image, centre), np.broadcast_to(heatmap_stride, 3).astype(float)
    heat = None if heatmap is None else _as_planes(heatmap, (np.add(centre, 0.5) / stride) - 0.5)
    red = None if mask is None else _as_planes(mask, centre)
    marks, lines = _marks(points or {}), fit_title(title_lines(title, base, spacing_mm_zyx))
    handles = _legend_handles(marks, None if mask is None else mask_label, window is not None)
    extent = np.asarray(base.shape_zyx) * (spacing_mm_zyx or (1, 1, 1))
    layout = _fit_legend(handles, extent, len(lines), colour_bar=heat is not None)
    figure, whole = Figure(figsize=layout.size, dpi=DOTS_PER_INCH), ((0, 0, 0), base.shape_zyx)
    draw_title(figure, lines)
    for view, place in zip(VIEWS, layout.panels, strict=True):
        axes, where = figure.add_axes(place), view.at(str(base.index_zyx[view.normal]))
        panels.draw_slice(axes, view, base, where, spacing_mm_zyx, whole, whole)
        _draw_overlays(axes, view, heat, stride, red, window)
        if spacing_mm_zyx is not None:
            panels.draw_scale_bar(axes, base.shape_zyx[view.columns], view, spacing_mm_zyx)
        for point, style in marks:
            axes.plot(point[view.columns], point[view.rows], **style)
    _draw_legend(figure, layout.legend, handles)
    if heat is not None:
        draw_colour_bar(figure, layout.colour_bar, heat, heatmap_label)
    return figure


def plot_crop(
    crop: np.ndarray,
    mask: np.ndarray | None,
    *,
    title: str,
    points: Mapping[str, Point] | None = None,
    spacing_mm_zyx: Triple | None = None,
    object_name: str = "jaw",
) -> Figure:
    """Show the middle slices of a crop with the silhouette of its whole mask in red.

    Unlike a slice of the mask, the silhouette shows whether the crop cuts the object off; the
    title names the faces that the object touches. Arguments as for `plot_slices`.
    """
    return plot_slices(
        crop,
        centre=(np.asarray(crop.shape) - 1) / 2,
        title=f"{title}\n{crop_verdict(mask, object_name)}",
        points=points,
        spacing_mm_zyx=spacing_mm_zyx,
        mask=None if mask is None else silhouettes(mask != 0),
        mask_label=f"silhouette of the {object_name} mask",
    )


def crop_verdict(mask: np.ndarray | None, object_name: str = "jaw") -> str:
    """Return whether the labelled voxels of a crop (z, y, x) reach its border, and which faces."""
    if mask is None:
        return f"without a mask it is unknown whether the crop holds all of the {object_name}"
    faces = [
        f"{end} {name}"
        for axis, name in enumerate("zyx")
        for end, index in (("low", 0), ("high", -1))
        if mask.take(index, axis).any()
    ]
    if faces:
        where = ", ".join(faces)
        return f"the {object_name} touches the crop's border at {where}: it may be cut off"
    if not mask.any():
        return "no labelled voxel in this crop"
    return f"the {object_name} does not touch the crop's border"


class Layout(NamedTuple):
    """A figure's size in inches and the boxes in it as fractions of that size."""

    size: tuple[float, float]
    panels: list[Box]
    legend: Box
    colour_bar: Box


def lay_out(
    extent_zyx: Sequence[float] | np.ndarray,
    title_lines: int,
    legend_lines: int,
    colour_bar: bool = False,
) -> Layout:
    """Fit three panels of a volume's proportions, title, legend and colour bar together.

    The panels share one scale where they fit side by side, with the legend below. A tall scan's
    upright views fill the height instead; its axial view then grows into the room left over, and
    the legend goes below that. `extent_zyx` are the volume's lengths in any one unit.
    """
    depth, height, width = (float(length) for length in extent_zyx)
    room = WIDTH - LEFT - RIGHT - 2 * GAP
    legend, bar = LEGEND_LINE * legend_lines, COLOUR_BAR * colour_bar
    scale = min(room / (2 * width + height), TALLEST_PANEL / max(depth, height))
    tallest = scale * max(depth, height)
    free = tallest - legend - bar - BOTTOM
    grown = min(room / width - scale * (1 + height / width), free / height)
    tall = grown >= scale
    axial = max(grown, scale)
    bottom = BOTTOM if tall else BOTTOM + max(legend, bar) + 0.15
    top = bottom + tallest
    widths = (axial * width, scale * width, scale * height)
    heights = (axial * height, scale * depth, scale * depth)
    gap = (room - sum(widths)) / 2 + GAP
    lefts = (LEFT, LEFT + widths[0] + gap, LEFT + widths[0] + widths[1] + 2 * gap)
    boxes = [(x, top - h, w, h) for x, w, h in zip(lefts, widths, heights, strict=True)]
    legend_top = top - heights[0] - BOTTOM - 0.1 if tall else bottom - BOTTOM - 0.05
    wide = widths[0] if tall else WIDTH - LEFT - RIGHT - colour_bar * 3.5
    boxes.append((LEFT, legend_top - legend, wide, max(legend, 0.01)))
    below, beside = (LEFT, legend_top - legend - 0.4), (WIDTH - RIGHT - 3.3, legend_top - 0.2)
    boxes.append((*(below if tall else beside), 3.0, 0.18))
    full = top + PANEL_TITLE + TITLE_LINE * title_lines
    panels = [(x / WIDTH, y / full, w / WIDTH, h / full) for x, y, w, h in boxes]
    return Layout((WIDTH, full), panels[:3], *panels[3:])


def _fit_legend(
    handles: Sequence[Line2D | Patch], extent_zyx: np.ndarray, title_lines: int, colour_bar: bool
) -> Layout:
    """Lay out a figure, and fit the labels to the room that this leaves to the legend."""
    labels = [str(handle.get_label()) for handle in handles]
    layout = lay_out(extent_zyx, title_lines, len(labels), colour_bar)
    for _ in range(2):  # more lines may leave another room
        room = layout.legend[2] * WIDTH - LEGEND_HANDLE
        fitted = [fit_label(label, room) for label in labels]
        layout = lay_out(extent_zyx, title_lines, len("\n".join(fitted).split("\n")), colour_bar)
    for handle, label in zip(handles, fitted, strict=True):
        handle.set_label(label)
    return layout


def title_lines(title: str, planes: OrthogonalSlices, spacing_mm_zyx: Triple | None) -> list[str]:
    """Return the title's lines, and a last one with the size of the volume."""
    lines = title.splitlines()
    size = f"{' × '.join(map(str, planes.shape_zyx))} voxels (z, y, x)"
    if spacing_mm_zyx is None:
        return [*lines, f"{size}, spacing unknown"]
    return [*lines, f"{size} of {' × '.join(f'{s:.3g}' for s in spacing_mm_zyx)} mm"]


def _as_planes(volume: Volume, point: Point) -> OrthogonalSlices:
    return volume if isinstance(volume, OrthogonalSlices) else orthogonal_slices(volume, point)


def _marks(points: Mapping[str, Point]) -> list[tuple[Point, Style]]:
    """Give each point a marker, a colour and a label of its own."""
    marks = []
    free = {True: cycle(CROSSES), False: cycle(RINGS)}
    for name, point in points.items():
        marker, colour = next(free["predict" in name.lower()])
        label = f"{name}: {', '.join(f'{value:.1f}' for value in point)} (z, y, x)"
        style = {"marker": marker, "markersize": 14, "markeredgewidth": 2, "linestyle": "none"}
        style |= {"color": Colour[colour], "markerfacecolor": "none", "path_effects": OUTLINE}
        marks.append((point, style | {"label": label}))
    return marks


def _draw_overlays(
    axes: Axes,
    view: View,
    heat: OrthogonalSlices | None,
    stride: np.ndarray,
    mask: OrthogonalSlices | None,
    window: Frame | None,
) -> None:
    if heat is not None:
        draw_heatmap(axes, view, heat, stride)
    if mask is not None:
        _draw_mask(axes, view.cut(mask) != 0, opacity=0.3 if heat is None else 0.0)
    if window is not None:
        panels.draw_box(axes, view, window)


def _draw_mask(axes: Axes, inside: np.ndarray, opacity: float) -> None:
    """Outline a mask in red and fill it, unless a heatmap is to be seen under it."""
    fill = np.zeros((*inside.shape, 4), np.float32)
    fill[inside] = (*to_rgb(JAW_RED), opacity)
    axes.imshow(fill, interpolation="nearest", aspect=axes.get_aspect())
    if inside.any():
        padded = np.pad(inside, 1).astype(np.float32)  # closes the outline at the border
        rows, columns = (np.arange(-1, n + 1) for n in inside.shape)
        line = axes.contour(columns, rows, padded, levels=[0.5], colors=JAW_RED, linewidths=1.5)
        line.set(path_effects=[withStroke(linewidth=3, foreground="white")])  # shows in grey too


def _legend_handles(
    marks: Sequence[tuple[Point, Style]], mask_label: str | None, window: bool
) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = [Line2D([], [], **style) for _, style in marks]
    if mask_label is not None:
        fill = (*to_rgb(JAW_RED), 0.3)
        handles.append(Patch(facecolor=fill, edgecolor=JAW_RED, label=mask_label))
    if window:
        handles.append(Patch(label="crop window", **BOX))
    return handles


def _draw_legend(figure: Figure, place: Box, handles: Sequence[Line2D | Patch]) -> None:
    legend = figure.add_axes(place)
    legend.set_axis_off()
    legend.legend(handles=handles, loc="upper left", borderaxespad=0, borderpad=0)
