"""Curves of a training run, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jawloc.heatmaps.curriculum import notable_changes
from jawloc.reporting.figures.style import ROUND, STYLE, Colour, Style, blank_chart, label_log_axis

if TYPE_CHECKING:  # would load torch, which no picture needs
    from jawloc.heatmaps.metrics import HeatmapMetrics
    from jawloc.training.records import EpochRecord

Curves = dict[str, tuple[np.ndarray, str]]  # label -> values by epoch, colour
METRICS = {  # the name in EpochRecord.flat(), after the split -> its label
    "kl_nats": "KL divergence (nats)",
    "dice": "Dice score (1 is perfect)",
    "mse": "mean squared error (probability²)",
}
# the trained loss -> its label, and what turns a stage's metrics into it
LOSSES: dict[str, tuple[str, Callable[[HeatmapMetrics], float | None]]] = {
    "kl": (METRICS["kl_nats"], lambda metrics: metrics.kl_nats),
    "dice": ("1 − Dice score", lambda metrics: 1 - metrics.dice),
    "mse": ("squared error / squared target", lambda metrics: metrics.mse_relative),
}
# Curves are told apart in grey, too. None is like the dotted marks of sigma's changes.
LINES: Sequence[Style] = [
    {"linestyle": "-", "marker": "o"},
    {"linestyle": (0, (5, 1.5)), "marker": "s"},
    {"linestyle": (0, (7, 1.5, 1.5, 1.5)), "marker": "^"},
    {"linestyle": (0, (2.5, 1.2)), "marker": "D"},
    {"linestyle": (0, (7, 1.5, 1.5, 1.5, 1.5, 1.5)), "marker": "v"},
]
MOST_MARKERS = 40  # epochs; of more, markers would hide the lines
LABEL_SHARE = 0.017  # of the width of a chart, for one upright label
GREY = "0.55"  # of the marks where the only stage's sigma changes
# Training and validation of the only stage, or of the coarse and of the fine one: a dark and a
# light shade of one colour each. The dark ones stand for the stages elsewhere too.
ONLY_STAGE = ((Colour.BLUE, Colour.VERMILION),)
TWO_STAGES = ((Colour.BLUE, Colour.SKY), (Colour.VERMILION, Colour.ORANGE))


@rc_context(STYLE)
def plot_losses(
    records: Sequence[EpochRecord],
    *,
    loss: Literal["kl", "dice", "mse"] = "kl",
    threshold: float | None = None,
    minimum_sigmas_voxels: Sequence[float] = (),
) -> Figure:
    """Show the training and validation loss of every epoch, and where sigma changed.

    A smaller sigma is a harder task, so the loss rises where it shrinks: dotted lines with the new
    sigma mark every notable change, and the epochs at each stage's minimum sigma are shaded. Each
    stage has a panel. The trained loss is shown, Dice as 1 - Dice, MSE relative to the target; the
    threshold, the curriculum's on this loss, is a horizontal line.
    """
    stages = _stage_names(records)
    figure = blank_chart(5.5 if len(stages) == 1 else 8.5)
    panels = figure.subplots(len(stages), sharex=True, squeeze=False)[:, 0]
    for number, axes in enumerate(panels):
        _draw_loss(axes, records, number, loss, threshold)
        minimum = minimum_sigmas_voxels[number] if minimum_sigmas_voxels else None
        colour = GREY if len(stages) == 1 else TWO_STAGES[number][0]
        _draw_sigma_steps(axes, records, number, minimum, labelled=True, colour=colour)
        if len(stages) > 1:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
            axes.label_outer()
    changes = len({record.sigmas_voxels for record in records}) > 1
    figure.suptitle(f"Loss by epoch{'; it rises where sigma decreases' * changes}", size=13)
    if len(stages) == 1:
        figure.legend(loc="outside lower center", ncols=5)
    return figure


def _draw_loss(
    axes: Axes, records: Sequence[EpochRecord], stage: int, loss: str, threshold: float | None
) -> None:
    label, loss_of = LOSSES[loss]
    stages = [record.stages[stage] for record in records]
    dark, light = (ONLY_STAGE if len(records[0].stages) == 1 else TWO_STAGES)[stage]
    train = np.array([loss_of(one.train) for one in stages], float)  # None becomes NaN
    val = np.array([loss_of(one.val) for one in stages], float)
    _draw_curves(axes, records, {"training": (train, dark), "validation": (val, light)})
    if threshold is not None:
        named = f"threshold {threshold:.3g}"
        axes.axhline(threshold, color=Colour.GREEN, linestyle="--", label=named)
    axes.set_ylabel(label + (stages[0].name and f", {stages[0].name} stage"))


@rc_context(STYLE)
def plot_metrics(records: Sequence[EpochRecord]) -> Figure:
    """Show KL, Dice and MSE between heatmaps and targets, for training and validation.

    Of two stages, they are those of the fine one, which gives the position.
    """
    last = _stage_names(records)[-1]
    figure = blank_chart(5)
    for axes, (name, label) in zip(figure.subplots(1, 3), METRICS.items(), strict=True):
        train, val = (_series(records, f"{split}_{name}") for split in ("train", "val"))
        colours = {"training": (train, Colour.BLUE), "validation": (val, Colour.VERMILION)}
        _draw_curves(axes, records, colours)
        _draw_sigma_steps(axes, records, -1)
        axes.set_ylabel(label)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    of_stage = f" ({last} stage)" if last else ""
    figure.suptitle(f"Predicted heatmap compared with its target{of_stage}", size=13)
    return figure


@rc_context(STYLE)
def plot_sigma(records: Sequence[EpochRecord]) -> Figure:
    """Show sigma beside the validation error, in voxels, and in mm where known.

    Of two stages each has its own sigma and its own error, both in the stage's colour. Of several
    objects, each has a curve of its own mean error.
    """
    units = {"voxels": "sigma and validation error (downsampled voxels)"}
    if any("val_error_mm" in record.flat() for record in records):
        units["mm"] = "validation error (mm)"
    errors = _series(records, "val_error_voxels")
    curves = {unit: _curves(records, unit) for unit in units}
    lines = math.ceil((len(curves["voxels"]) + 1) / 2)  # of the legend
    figure = blank_chart(5.2 + 0.27 * lines)
    panels = figure.subplots(1, len(units), squeeze=False)[0]
    for axes, (unit, label) in zip(panels, units.items(), strict=True):
        _draw_curves(axes, records, curves[unit])
        if np.isfinite(errors).any():
            best = int(np.nanargmin(errors))
            epoch, lowest = records[best].epoch, _series(records, f"val_error_{unit}")[best]
            of = "" if unit == "voxels" else " in voxels"
            text = f"lowest{of}, epoch {epoch}: {lowest:.3g} {unit}"
            axes.plot(epoch, lowest, "*", ms=15, color=Colour.GREEN, label=text)
        axes.set_ylabel(label)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    figure.suptitle("Sigma and validation error by epoch", size=13)
    return figure


def _curves(records: Sequence[EpochRecord], unit: str) -> Curves:
    """Return each stage's sigma and mean error, the last one's median and largest, the objects'."""
    stages = _stage_names(records)
    single = len(stages) == 1
    curves: Curves = {}
    for stage, (colour, _) in zip(stages, ONLY_STAGE if single else TWO_STAGES, strict=True):
        of, infix = ("", "") if single else (f", {stage}", f"_{stage}")
        if unit == "voxels":
            sigma = _series(records, f"sigma{infix}_voxels")
            curves[f"sigma{of}"] = (sigma, Colour.BLACK if single else colour)
        key = f"val_error_{unit}" if stage == stages[-1] else f"val_error{infix}_{unit}"
        curves[f"mean error{of}"] = (_series(records, key), Colour.VERMILION if single else colour)
    median, largest = (_series(records, f"val_error_{unit}_{end}") for end in ("median", "max"))
    curves[f"median error{of}"] = (median, Colour.ORANGE)
    curves[f"largest error{of}"] = (largest, Colour.PURPLE)
    shades = cycle([*([Colour.BLUE] * single), Colour.SKY, Colour.GREEN, "0.5"])
    for name in dict.fromkeys(name for record in records for name in record.val.by_object):
        mean = _series(records, f"val_error_{name}_{unit}")
        curves[f"mean error of {name}"] = (mean, next(shades))
    return curves


def _series(records: Sequence[EpochRecord], key: str) -> np.ndarray:
    return np.array([record.flat().get(key, np.nan) for record in records], float)


def _stage_names(records: Sequence[EpochRecord]) -> list[str]:
    if not records:
        raise ValueError("a chart by epoch needs at least one epoch")
    return [stage.name for stage in records[0].stages]


def _draw_curves(
    axes: Axes, records: Sequence[EpochRecord], curves: Mapping[str, tuple[np.ndarray, str]]
) -> None:
    """Draw curves by epoch, on a log scale where positive values span more than a decade."""
    epochs = [record.epoch for record in records]
    lines = cycle(LINES)
    for name, (values, colour) in curves.items():
        style: Style = {"drawstyle": "steps-mid", "linestyle": "--", "marker": "."}
        if not name.startswith("sigma"):
            style = next(lines).copy()
        if len(epochs) > MOST_MARKERS:
            style["marker"] = None
        axes.plot(epochs, values, color=colour, label=name, markersize=4, linewidth=1.8, **style)
    every = np.concatenate([values for values, _ in curves.values()])
    every = every[np.isfinite(every)]
    if every.size and every.min() > 0 and every.max() > 10 * every.min():
        axes.set_yscale("log")
        label_log_axis(axes.yaxis, (1, 2, 5) if every.max() < 1e3 * every.min() else (1,))
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
    stage: int,
    minimum_sigma_voxels: float | None = None,
    labelled: bool = False,
    colour: str = GREY,
) -> None:
    """Mark the notable changes of a stage's sigma, and shade the epochs at its minimum."""
    epochs, sigmas = [r.epoch for r in records], [r.sigmas_voxels[stage] for r in records]
    changes = notable_changes(sigmas, min(sigmas))
    marks = [((epochs[i - 1] + epochs[i]) / 2, f"{sigmas[i]:.2f}") for i in changes]
    for number, (x, _) in enumerate(marks):
        label = "_" * bool(number) + f"change of sigma{' (voxels, above)' * labelled}"
        axes.axvline(x, color=colour, linestyle=":", linewidth=1.2, label=label, zorder=0)
    if labelled:
        _label_marks(axes, marks, colour)
    lowest = [e for e, s in zip(epochs, sigmas, strict=True) if s <= (minimum_sigma_voxels or -1)]
    if lowest:
        label = f"sigma at its minimum, {minimum_sigma_voxels:g} voxels"
        axes.axvspan(lowest[0] - 0.5, lowest[-1] + 0.5, color="0.92", zorder=-1, label=label)


def _label_marks(axes: Axes, marks: Sequence[tuple[float, str]], colour: str) -> None:
    """Write upright labels above marks at some x, each beside its neighbours and tied to its mark.

    So many labels that they have no room in one row are thinned out.
    """
    first, last = axes.get_xlim()
    room = LABEL_SHARE * (last - first)
    every = math.ceil(len(marks) * room / (last - first)) if marks else 1
    marks = marks[::every]
    places = spread_out([x for x, _ in marks], room, first, last)
    for place, (x, text) in zip(places, marks, strict=True):
        axes.annotate(
            text,
            (x, 1.0),
            xytext=(place, 1.04),
            xycoords=axes.get_xaxis_transform(),
            rotation=90,
            size=10,
            ha="center",
            va="bottom",
            color=Colour.BLACK if colour == GREY else colour,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.8, "relpos": (0.5, 0)},
        )


def spread_out(wanted: Sequence[float], room: float, first: float, last: float) -> list[float]:
    """Return places in the same order, `room` apart, inside the limits, near the wanted ones.

    Neighbours that are too close are moved together, each group about its own middle.
    """
    groups: list[list[float]] = []  # of where each group's first place is wanted
    for number, x in enumerate(wanted):
        groups.append([x - number * room])
        while len(groups) > 1 and np.mean(groups[-1]) < np.mean(groups[-2]):
            moved = groups.pop()
            groups[-1] += moved
    starts = [float(np.mean(group)) for group in groups for _ in group]
    lowest, highest = first + room / 2, last - room / 2 - (len(starts) - 1) * room
    return [min(max(s, lowest), max(highest, lowest)) + n * room for n, s in enumerate(starts)]
