"""Slices of scans with whatever is known about them: points, masks, heatmaps, windows.

Volumes and points come in as (z, y, x); here they are reordered, because a screen is (x, y).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from jawloc.geometry import Triple
from jawloc.reporting.figures.layout import (
    VIEWS,
    Box,
    View,
    crop_verdict,
    lay_out,
    scale_bar_mm,
    title_lines,
)
from jawloc.reporting.figures.style import (
    DOTS_PER_INCH,
    GREEN,
    ORANGE,
    PURPLE,
    ROUND,
    SKY,
    STYLE,
    VERMILION,
    YELLOW,
    Style,
)
from jawloc.scans.orthogonal_slices import OrthogonalSlices, orthogonal_slices, silhouettes

Volume = np.ndarray | OrthogonalSlices
Point = Sequence[float] | np.ndarray
JAW_RED = "#FF2A2A"
# for what is known
RINGS = (
    *(("o", SKY), ("s", PURPLE), ("D", GREEN)),
    *(("^", YELLOW), ("v", ORANGE), ("h", VERMILION)),
)
# for what is predicted
CROSSES = (
    *(("+", YELLOW), ("x", ORANGE), ("1", VERMILION)),
    *(("2", SKY), ("3", PURPLE), ("4", GREEN)),
)
OUTLINE = [withStroke(linewidth=3.5, foreground="black")]
WINDOW_STYLE: Style = {"fill": False, "edgecolor": ORANGE, "linestyle": "--", "linewidth": 1.8}


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
    window: tuple[Point, Point] | None = None,
) -> Figure:
    """Show three orthogonal slices through a point, with whatever is known about them.

    Parameters
    ----------
    image : array, shape (z, y, x), or OrthogonalSlices
        Grey values; `OrthogonalSlices` where the scan is too large to be in memory.
    centre : (z, y, x) in voxels
        The point that the slices of arrays go through (`OrthogonalSlices` are cut already).
    title : str
        Any number of lines; long ones are wrapped.
    points : mapping from a name to (z, y, x) in voxels
        Marked in every panel (projected onto it) and listed in the legend; with a cross if the
        name has "predict" in it, else with a ring.
    spacing_mm_zyx : tuple of float or None
        Gives the panels their aspect and a scale bar; None draws voxels as cubes and says so.
    mask : array or OrthogonalSlices on the image's grid
        Everything but 0 is drawn in red.
    heatmap : array or OrthogonalSlices
        Drawn over the image; each of its voxels covers `heatmap_stride` image voxels.
    window : (start, stop), each (z, y, x) in voxels
        A box, `start` inside and `stop` outside, drawn as a dashed rectangle.
    """
    base = _as_planes(image, centre)
    stride = np.broadcast_to(np.asarray(heatmap_stride, float), 3)
    in_heatmap = (np.asarray(centre, float) + 0.5) / stride - 0.5
    heat = None if heatmap is None else _as_planes(heatmap, in_heatmap)
    jaw = None if mask is None else _as_planes(mask, centre)
    marks = _marks(points or {})
    lines = title_lines(title, base, spacing_mm_zyx)
    extent = np.asarray(base.shape_zyx) * (spacing_mm_zyx or (1, 1, 1))
    with rc_context(STYLE):
        handles = _legend_handles(marks, None if jaw is None else mask_label, window is not None)
        layout = lay_out(extent, len(lines), len(handles), colour_bar=heat is not None)
        figure = Figure(figsize=layout.size, dpi=DOTS_PER_INCH)
        _write_title(figure, lines)
        for view, box in zip(VIEWS, layout.panels, strict=True):
            axes = figure.add_axes(box)
            _draw_grey(axes, view, base, spacing_mm_zyx)
            if heat is not None:
                _draw_heatmap(axes, view, heat, stride)
            if jaw is not None:
                _draw_mask(axes, view.cut(jaw) != 0, opacity=0.3 if heat is None else 0.0)
            if window is not None:
                _draw_window(axes, view, window)
            if spacing_mm_zyx is not None:
                _draw_scale_bar(axes, base.shape_zyx[view.columns] * spacing_mm_zyx[view.columns])
            for _, point, style in marks:
                axes.plot(point[view.columns], point[view.rows], **style)
        legend = figure.add_axes(layout.legend)
        legend.set_axis_off()
        legend.legend(handles=handles, loc="upper left", borderaxespad=0, borderpad=0)
        if heat is not None:
            _draw_colour_bar(figure, layout.colour_bar, heat, heatmap_label)
    return figure


def plot_crop(
    crop: np.ndarray,
    mask: np.ndarray,
    *,
    title: str,
    points: Mapping[str, Point] | None = None,
    spacing_mm_zyx: Triple | None = None,
    object_name: str = "jaw",
) -> Figure:
    """Show the middle slices of a crop with the silhouette of all of its jaw in red.

    The silhouette, unlike a slice of the mask, shows at once whether the crop cuts the jaw off;
    the title names the faces that the jaw touches. Arguments as for `plot_slices`.

    Parameters
    ----------
    object_name : str
        What the mask is of, where it isn't the jaw.
    """
    return plot_slices(
        crop,
        centre=(np.asarray(crop.shape) - 1) / 2,
        title=f"{title}\n{crop_verdict(mask, object_name)}",
        points=points,
        spacing_mm_zyx=spacing_mm_zyx,
        mask=silhouettes(mask != 0),
        mask_label=f"silhouette of the {object_name} mask",
    )


def _as_planes(volume: Volume, point: Point) -> OrthogonalSlices:
    return volume if isinstance(volume, OrthogonalSlices) else orthogonal_slices(volume, point)


def _marks(points: Mapping[str, Point]) -> list[tuple[str, Point, Style]]:
    """Give predicted points crosses and all others rings, each its own marker and colour."""
    marks = []
    free = {True: cycle(CROSSES), False: cycle(RINGS)}
    for name, point in points.items():
        marker, colour = next(free["predict" in name.lower()])
        style = {"marker": marker, "markersize": 14, "markeredgewidth": 2, "linestyle": "none"}
        style |= {"color": colour, "markerfacecolor": "none", "path_effects": OUTLINE}
        marks.append((name, point, style))
    return marks


def _write_title(figure: Figure, lines: Sequence[str]) -> None:
    for row, line in enumerate(lines):
        style: Style = {"size": 13, "weight": "bold"} if row == 0 else {"size": 12}
        y = 1 - (0.15 + 0.24 * row) / figure.get_figheight()
        figure.text(0.02, y, line, va="top", parse_math=False, **style)


def _draw_grey(axes: Axes, view: View, base: OrthogonalSlices, spacing: Triple | None) -> None:
    """Draw a slice with axes in voxels; the three share a grey window that outliers don't move."""
    values = np.concatenate([v.cut(base).ravel()[::5] for v in VIEWS]).astype(np.float32)
    low, high = np.nanpercentile(values, (1, 99.5))
    axes.imshow(
        view.cut(base).astype(np.float32),
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        aspect=spacing[view.rows] / spacing[view.columns] if spacing else 1.0,
    )
    axes.set_autoscale_on(False)
    if view.rows == 0:
        axes.invert_yaxis()
    axes.set_title(f"{view.name}, {view.label('normal')} = {base.index_zyx[view.normal]}")
    axes.set_xlabel(f"{view.label('columns')} (voxels)")
    axes.set_ylabel(f"{view.label('rows')} (voxels)", labelpad=2)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=ROUND))
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=ROUND))


def _heat_colours() -> ListedColormap:
    """Return a colour map that is transparent at zero, so that the scan shows under a heatmap."""
    colours = colormaps["plasma"](np.linspace(0.15, 1, 256))
    colours[:, 3] = 0.75 * np.linspace(0, 1, 256) ** 0.5
    return ListedColormap(colours)


def _highest(heat: OrthogonalSlices) -> float:
    return max(float(max(np.nanmax(view.cut(heat)) for view in VIEWS)), 1e-12)


def _draw_heatmap(axes: Axes, view: View, heat: OrthogonalSlices, stride: np.ndarray) -> None:
    """Lay a heatmap over a slice: its voxel j covers the voxels s * j ... s * j + s - 1."""
    rows, columns = view.cut(heat).shape
    right, bottom = columns * stride[view.columns] - 0.5, rows * stride[view.rows] - 0.5
    axes.imshow(
        view.cut(heat),
        cmap=_heat_colours(),
        vmin=0,
        vmax=_highest(heat),
        extent=(-0.5, right, bottom, -0.5),
        interpolation="bilinear",
        aspect=axes.get_aspect(),
    )


def _draw_mask(axes: Axes, inside: np.ndarray, opacity: float) -> None:
    """ObjectRegion a mask in red and fill it, unless a heatmap is to be seen under it."""
    fill = np.zeros((*inside.shape, 4), np.float32)
    fill[inside] = (*to_rgb(JAW_RED), opacity)
    axes.imshow(fill, interpolation="nearest", aspect=axes.get_aspect())
    if inside.any():
        padded = np.pad(inside, 1).astype(np.float32)  # closes the outline at the border
        rows, columns = (np.arange(-1, n + 1) for n in inside.shape)
        axes.contour(columns, rows, padded, levels=[0.5], colors=JAW_RED, linewidths=1.5)


def _draw_window(axes: Axes, view: View, window: tuple[Point, Point]) -> None:
    (left, top), (right, bottom) = ((p[view.columns] - 0.5, p[view.rows] - 0.5) for p in window)
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, **WINDOW_STYLE))


def _draw_scale_bar(axes: Axes, width_mm: float) -> None:
    """Draw a bar of a round length in the lower left corner of a panel that is so wide."""
    length_mm = scale_bar_mm(width_mm)
    inches = axes.get_window_extent().height / DOTS_PER_INCH
    style: Style = {"transform": axes.transAxes, "color": "white", "path_effects": OUTLINE}
    ends = [0.06, 0.06 + length_mm / width_mm]
    axes.plot(ends, [0.15 / inches] * 2, linewidth=4, solid_capstyle="butt", **style)
    axes.text(0.06, 0.22 / inches, f"{length_mm:g} mm", va="bottom", **style)


def _legend_handles(
    marks: Sequence[tuple[str, Point, Style]], mask_label: str | None, window: bool
) -> list[Line2D | Patch]:
    handles: list[Line2D | Patch] = []
    for name, point, style in marks:
        position = ", ".join(f"{value:.1f}" for value in point)
        handles.append(Line2D([], [], label=f"{name}: {position} (z, y, x)", **style))
    if mask_label is not None:
        fill = (*to_rgb(JAW_RED), 0.3)
        handles.append(Patch(facecolor=fill, edgecolor=JAW_RED, label=mask_label))
    if window:
        handles.append(Patch(label="crop window", **WINDOW_STYLE))
    return handles


def _draw_colour_bar(figure: Figure, box: Box, heat: OrthogonalSlices, label: str) -> None:
    """Draw the heatmap's scale, on grey, since its low end is transparent."""
    highest = _highest(heat)
    bar = figure.add_axes(box, facecolor="0.3")
    colours = ScalarMappable(Normalize(0, highest), _heat_colours())
    figure.colorbar(colours, cax=bar, orientation="horizontal", label=label)
    bar.set_xticks([0, highest], ["0", f"{highest:.2g}"])
