"""Pictures of scans, heatmaps and training; the only module that imports matplotlib.

Every function returns a free-standing `Figure`: no pyplot, no state shared between figures.
Volumes and points come in as (z, y, x); here they are reordered, because a screen is (x, y).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from jawloc.geometry import Triple
from jawloc.reporting.layout import (
    VIEWS,
    WIDTH,
    Box,
    View,
    crop_verdict,
    describe,
    lay_out,
    scale_bar_mm,
)
from jawloc.reporting.picture_files import write_png
from jawloc.scans.planes import Planes, planes_through, silhouettes

if TYPE_CHECKING:  # would load torch, which no picture needs
    from jawloc.training.loop import EpochRecord

Volume = np.ndarray | Planes
Point = Sequence[float] | np.ndarray
Style = dict[str, Any]

DOTS_PER_INCH = 100
STYLE: Any = {"font.size": 12, "axes.titlesize": 12, "legend.frameon": False}

# Okabe and Ito's palette, which colour-blind readers can tell apart.
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"
JAW_RED = "#FF2A2A"
RINGS = (("o", SKY), ("s", PURPLE), ("D", GREEN))  # for what is known
CROSSES = (("+", YELLOW), ("x", ORANGE), ("1", VERMILION))  # for what is predicted
ROUND = [1, 2, 5, 10]  # steps between ticks
OUTLINE = [withStroke(linewidth=3.5, foreground="black")]
WINDOW_STYLE: Style = {"fill": False, "edgecolor": ORANGE, "linestyle": "--", "linewidth": 1.8}

KEYS = {"kl": "kl_nats", "dice": "dice", "mse": "mse"}  # of EpochRecord.flat(), after the split
LABELS = {
    "kl": "KL divergence (nats)",
    "dice": "Dice score (1 is perfect)",
    "mse": "mean squared error (probability²)",
}


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
    image : array, shape (z, y, x), or Planes
        Grey values; `Planes` where the scan is too large to be in memory.
    centre : (z, y, x) in voxels
        The point that the slices of arrays go through (`Planes` are cut already).
    title : str
        Any number of lines; long ones are wrapped.
    points : mapping from a name to (z, y, x) in voxels
        Marked in every panel (projected onto it) and listed in the legend; with a cross if the
        name has "predict" in it, else with a ring.
    spacing_mm_zyx : tuple of float or None
        Gives the panels their aspect and a scale bar; None draws voxels as cubes and says so.
    mask : array or Planes on the image's grid
        Everything but 0 is drawn in red.
    heatmap : array or Planes
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
    lines = describe(title, base, spacing_mm_zyx)
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
) -> Figure:
    """Show the middle slices of a crop with the silhouette of all of its jaw in red.

    The silhouette, unlike a slice of the mask, shows at once whether the crop cuts the jaw off;
    the title names the faces that the jaw touches. Arguments as for `plot_slices`.
    """
    return plot_slices(
        crop,
        centre=(np.asarray(crop.shape) - 1) / 2,
        title=f"{title}\n{crop_verdict(mask)}",
        points=points,
        spacing_mm_zyx=spacing_mm_zyx,
        mask=silhouettes(mask != 0),
        mask_label="silhouette of the jaw mask",
    )


def _as_planes(volume: Volume, point: Point) -> Planes:
    return volume if isinstance(volume, Planes) else planes_through(volume, point)


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


def _draw_grey(axes: Axes, view: View, base: Planes, spacing: Triple | None) -> None:
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


def _highest(heat: Planes) -> float:
    return max(float(max(np.nanmax(view.cut(heat)) for view in VIEWS)), 1e-12)


def _draw_heatmap(axes: Axes, view: View, heat: Planes, stride: np.ndarray) -> None:
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
    """Outline a mask in red and fill it, unless a heatmap is to be seen under it."""
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


def _draw_colour_bar(figure: Figure, box: Box, heat: Planes, label: str) -> None:
    """Draw the heatmap's scale, on grey, since its low end is transparent."""
    highest = _highest(heat)
    bar = figure.add_axes(box, facecolor="0.3")
    colours = ScalarMappable(Normalize(0, highest), _heat_colours())
    figure.colorbar(colours, cax=bar, orientation="horizontal", label=label)
    bar.set_xticks([0, highest], ["0", f"{highest:.2g}"])


def plot_losses(
    records: Sequence[EpochRecord],
    *,
    loss: Literal["kl", "dice", "mse"] = "kl",
    threshold: float | None = None,
    minimum_sigma_voxels: float | None = None,
) -> Figure:
    """Show the training and validation loss of every epoch, and where sigma changed.

    A smaller sigma is a harder task, so the loss jumps up at each change: dotted lines with the
    new sigma mark them, and the epochs at `minimum_sigma_voxels` are shaded.

    Parameters
    ----------
    records : list of EpochRecord
    loss : str
        Which of the three was trained on; Dice is shown as 1 - Dice, MSE as the plain mean.
    threshold : float or None
        The curriculum's threshold on this loss, drawn as a horizontal line.
    """
    with rc_context(STYLE):
        figure = _blank_chart(5.5)
        axes = figure.add_subplot()
        curves = _both_splits(records, loss)
        if loss == "dice":
            curves = {name: (1 - values, colour) for name, (values, colour) in curves.items()}
        _draw_curves(axes, records, curves)
        if threshold is not None:
            axes.axhline(threshold, color=GREEN, linestyle="--", label=f"threshold {threshold:g}")
        _draw_sigma_steps(axes, records, minimum_sigma_voxels, labelled=True)
        axes.set_ylabel("1 − Dice score" if loss == "dice" else LABELS[loss])
        shrinks = "; it jumps up wherever sigma shrinks" if _sigma_changes(records) else ""
        figure.suptitle(f"Loss by epoch{shrinks}", size=13)
        figure.legend(loc="outside lower center", ncols=5)
    return figure


def plot_metrics(records: Sequence[EpochRecord]) -> Figure:
    """Show KL, Dice and MSE between heatmaps and targets, for training and validation."""
    with rc_context(STYLE):
        figure = _blank_chart(5)
        for axes, name in zip(figure.subplots(1, 3), KEYS, strict=True):
            _draw_curves(axes, records, _both_splits(records, name))
            _draw_sigma_steps(axes, records)
            axes.set_ylabel(LABELS[name])
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.suptitle("Predicted heatmap against its target", size=13)
    return figure


def plot_sigma(records: Sequence[EpochRecord]) -> Figure:
    """Show sigma beside the validation error that it led to, in voxels, and in mm where known."""
    units = ["voxels"] + ["mm"] * any("val_error_mm" in record.flat() for record in records)
    errors = _series(records, "val_error_voxels")  # the best epoch is the best by this, as in fit()
    names = {"": ("mean", VERMILION), "_median": ("median", ORANGE), "_max": ("largest", PURPLE)}
    with rc_context(STYLE):
        figure = _blank_chart(5.8)
        for axes, unit in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
            curves = (
                {"sigma": (_series(records, "sigma_voxels"), BLACK)} if unit == "voxels" else {}
            )
            for ending, (name, colour) in names.items():
                curves[f"{name} error"] = (_series(records, f"val_error_{unit}{ending}"), colour)
            _draw_curves(axes, records, curves)
            if np.isfinite(errors).any():
                best = int(np.nanargmin(errors))
                epoch, lowest = records[best].epoch, curves["mean error"][0][best]
                label = f"best epoch {epoch}: {lowest:.3g} {unit}"
                axes.plot(epoch, lowest, "*", ms=15, color=GREEN, label=label)
            axes.set_ylabel("voxels of the downsampled grid" if unit == "voxels" else "mm")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
        figure.suptitle("Sigma and validation error by epoch", size=13)
    return figure


def _blank_chart(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")


def _series(records: Sequence[EpochRecord], key: str) -> np.ndarray:
    return np.array([record.flat().get(key, np.nan) for record in records], float)


def _both_splits(records: Sequence[EpochRecord], name: str) -> dict[str, tuple[np.ndarray, str]]:
    return {
        "training": (_series(records, f"train_{KEYS[name]}"), BLUE),
        "validation": (_series(records, f"val_{KEYS[name]}"), VERMILION),
    }


def _sigma_changes(records: Sequence[EpochRecord]) -> list[tuple[EpochRecord, EpochRecord]]:
    return [(a, b) for a, b in pairwise(records) if a.sigma_voxels != b.sigma_voxels]


def _draw_curves(
    axes: Axes, records: Sequence[EpochRecord], curves: Mapping[str, tuple[np.ndarray, str]]
) -> None:
    """Draw curves by epoch, on a log scale where positive values span more than a decade."""
    if not records:
        raise ValueError("a chart by epoch needs at least one epoch")
    epochs = [record.epoch for record in records]
    style: Style = {"marker": "o" if len(epochs) <= 40 else None, "markersize": 4, "linewidth": 1.8}
    for name, (values, colour) in curves.items():
        step: Style = {"drawstyle": "steps-mid", "linestyle": "--"} if name == "sigma" else {}
        axes.plot(epochs, values, color=colour, label=name, **style, **step)
    every = np.concatenate([values for values, _ in curves.values()])
    every = every[np.isfinite(every)]
    if every.size and every.min() > 0 and every.max() > 10 * every.min():
        axes.set_yscale("log")
        small = every.max() < 1e3 * every.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if small else (1,)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("epoch")
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    if len(epochs) <= 8:
        axes.set_xticks(epochs)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=ROUND, integer=True))
    axes.grid(alpha=0.25)


def _draw_sigma_steps(
    axes: Axes,
    records: Sequence[EpochRecord],
    minimum_sigma_voxels: float | None = None,
    labelled: bool = False,
) -> None:
    """Mark every change of sigma, and shade the epochs at its minimum."""
    room, free_from = 0.025 * len(records), -np.inf  # epochs that one upright label takes
    for number, (before, after) in enumerate(_sigma_changes(records)):
        x = (before.epoch + after.epoch) / 2
        label = "_" * bool(number) + f"sigma changes{' (voxels, above)' * labelled}"
        axes.axvline(x, color="0.55", linestyle=":", linewidth=1.2, label=label, zorder=0)
        if labelled and x >= free_from:
            place: Style = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            axes.text(x, 1.01, f"{after.sigma_voxels:.2f}", rotation=90, size=10, **place)
            free_from = x + room
    lowest = [r.epoch for r in records if r.sigma_voxels <= (minimum_sigma_voxels or -1)]
    if lowest:
        label = f"sigma at its minimum, {minimum_sigma_voxels:g}"
        axes.axvspan(lowest[0] - 0.5, lowest[-1] + 0.5, color="0.92", zorder=-1, label=label)


def figure_to_array(figure: Figure) -> np.ndarray:
    """Render a figure to an array of uint8, shape (rows, columns, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a small PNG, whole or not at all, and clear it."""
    picture = figure_to_array(figure)
    figure.clear()
    write_png(picture, path, DOTS_PER_INCH)
