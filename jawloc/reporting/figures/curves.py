"""Curves of a training run, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from jawloc.reporting.figures.layout import (
    WIDTH,
)
from jawloc.reporting.figures.style import (
    BLACK,
    BLUE,
    DOTS_PER_INCH,
    GREEN,
    ORANGE,
    PURPLE,
    ROUND,
    SKY,
    STYLE,
    VERMILION,
    Style,
)

if TYPE_CHECKING:  # would load torch, which no picture needs
    from jawloc.heatmaps.metrics import HeatmapMetrics
    from jawloc.training.records import EpochRecord

KEYS = {"kl": "kl_nats", "dice": "dice", "mse": "mse"}  # of EpochRecord.flat(), after the split
LABELS = {
    "kl": "KL divergence (nats)",
    "dice": "Dice score (1 is perfect)",
    "mse": "mean squared error (probability²)",
}
GREY = "0.55"  # of the marks where the only stage's sigma changes
# of what is trained on, and what turns a stage's metrics into it
LOSSES: dict[str, tuple[str, Callable[[HeatmapMetrics], float | None]]] = {
    "kl": (LABELS["kl"], lambda metrics: metrics.kl_nats),
    "dice": ("1 − Dice score", lambda metrics: 1 - metrics.dice),
    "mse": ("squared error / squared target", lambda metrics: metrics.mse_relative),
}
# Training and validation of the only stage, or of the coarse and of the fine one: a dark and a
# light shade of one colour each. The dark ones stand for the stages elsewhere too.
ONLY_STAGE = ((BLUE, VERMILION),)
TWO_STAGES = ((BLUE, SKY), (VERMILION, ORANGE))


def plot_losses(
    records: Sequence[EpochRecord],
    *,
    loss: Literal["kl", "dice", "mse"] = "kl",
    threshold: float | None = None,
    minimum_sigmas_voxels: Sequence[float] = (),
) -> Figure:
    """Show the training and validation loss of every epoch, and where sigma changed.

    A smaller sigma is a harder task, so the loss jumps up at each change: dotted lines with the
    new sigma mark them, and the epochs at the minimum sigma are shaded. Of two stages each has a
    panel, with its own loss and its own changes.

    Parameters
    ----------
    records : list of EpochRecord
    loss : str
        Which of the three was trained on; Dice is shown as 1 - Dice, MSE relative to the target.
    threshold : float or None
        The curriculum's threshold on this loss, drawn as a horizontal line.
    minimum_sigmas_voxels : sequence of float
        Of each stage, in order; none where nothing is to be shaded.
    """
    stages = _stage_names(records)
    with rc_context(STYLE):
        figure = _blank_chart(5.5 if len(stages) == 1 else 8.5)
        panels = figure.subplots(len(stages), sharex=True, squeeze=False)[:, 0]
        for number, (axes, colours) in enumerate(zip(panels, _colours(stages), strict=True)):
            label, loss_of = LOSSES[loss]
            curves = {
                split: (_of_stage(records, number, split, loss_of), colour)
                for split, colour in zip(("training", "validation"), colours, strict=True)
            }
            _draw_curves(axes, records, curves)
            if threshold is not None:
                text = f"threshold {threshold:.3g}"
                axes.axhline(threshold, color=GREEN, linestyle="--", label=text)
            minimum = minimum_sigmas_voxels[number] if minimum_sigmas_voxels else None
            colour = GREY if len(stages) == 1 else colours[0]
            _draw_sigma_steps(axes, records, number, minimum, labelled=True, colour=colour)
            axes.set_ylabel(f"{label}{stages[number] and f', {stages[number]} stage'}")
            if len(stages) > 1:
                axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
                axes.label_outer()
        shrinks = "; it jumps up wherever sigma shrinks" if _any_sigma_changes(records) else ""
        figure.suptitle(f"Loss by epoch{shrinks}", size=13)
        if len(stages) == 1:
            figure.legend(loc="outside lower center", ncols=5)
    return figure


def plot_metrics(records: Sequence[EpochRecord]) -> Figure:
    """Show KL, Dice and MSE between heatmaps and targets, for training and validation.

    Of two stages, they are those of the fine one, which gives the position.
    """
    last = _stage_names(records)[-1]
    with rc_context(STYLE):
        figure = _blank_chart(5)
        for axes, name in zip(figure.subplots(1, 3), KEYS, strict=True):
            _draw_curves(axes, records, _both_splits(records, name))
            _draw_sigma_steps(axes, records, -1)
            axes.set_ylabel(LABELS[name])
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        of_stage = f" ({last} stage)" if last else ""
        figure.suptitle(f"Predicted heatmap against its target{of_stage}", size=13)
    return figure


def plot_sigma(records: Sequence[EpochRecord]) -> Figure:
    """Show sigma beside the validation error that it led to, in voxels, and in mm where known.

    Of two stages each has its own sigma and its own error, both in the stage's colour. Of several
    objects, each has a curve of its own mean error.
    """
    units = ["voxels"] + ["mm"] * any("val_error_mm" in record.flat() for record in records)
    errors = _series(records, "val_error_voxels")  # the best epoch is the best by this, as in fit()
    with rc_context(STYLE):
        figure = _blank_chart(5.8 if len(_stage_names(records)) == 1 else 6.6)
        for axes, unit in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
            curves = {**_stage_curves(records, unit), **_error_curves(records, unit)}
            _draw_curves(axes, records, curves)
            if np.isfinite(errors).any():
                best = int(np.nanargmin(errors))
                epoch, lowest = records[best].epoch, _series(records, f"val_error_{unit}")[best]
                label = f"best epoch {epoch}: {lowest:.3g} {unit}"
                axes.plot(epoch, lowest, "*", ms=15, color=GREEN, label=label)
            axes.set_ylabel("voxels of the downsampled grid" if unit == "voxels" else "mm")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
        figure.suptitle("Sigma and validation error by epoch", size=13)
    return figure


def _stage_curves(records: Sequence[EpochRecord], unit: str) -> dict[str, tuple[np.ndarray, str]]:
    """Return sigma, and of two stages each stage's, with its mean error, in the stage's colour."""
    stages = _stage_names(records)
    if len(stages) == 1:
        sigma = {"sigma": (_series(records, "sigma_voxels"), BLACK)} if unit == "voxels" else {}
        return {**sigma, "mean error": (_series(records, f"val_error_{unit}"), VERMILION)}
    curves = {}
    for stage, (colour, _) in zip(stages, TWO_STAGES, strict=True):
        if unit == "voxels":
            curves[f"sigma, {stage}"] = (_series(records, f"sigma_{stage}_voxels"), colour)
        key = f"val_error_{unit}" if stage == stages[-1] else f"val_error_{stage}_{unit}"
        curves[f"mean error, {stage}"] = (_series(records, key), colour)
    return curves


def _error_curves(records: Sequence[EpochRecord], unit: str) -> dict[str, tuple[np.ndarray, str]]:
    """Return the final error's median and largest, and each of several objects' own mean."""
    objects = list(dict.fromkeys(name for record in records for name in record.val.by_object))
    stages = _stage_names(records)
    own = (BLUE, SKY, GREEN, "0.5") if len(stages) == 1 else (SKY, GREEN, "0.5")
    of = f", {stages[-1]}" if len(stages) > 1 else ""
    curves = {
        f"median error{of}": (_series(records, f"val_error_{unit}_median"), ORANGE),
        f"largest error{of}": (_series(records, f"val_error_{unit}_max"), PURPLE),
    }
    for name, colour in zip(objects, cycle(own), strict=False):
        values = _series(records, f"val_error_{name}_{unit}")
        curves[f"mean error of {name}"] = (values, colour)
    return curves


def _blank_chart(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")


def _series(records: Sequence[EpochRecord], key: str) -> np.ndarray:
    return np.array([record.flat().get(key, np.nan) for record in records], float)


def _both_splits(records: Sequence[EpochRecord], name: str) -> dict[str, tuple[np.ndarray, str]]:
    return {
        "training": (_series(records, f"train_{KEYS[name]}"), BLUE),
        "validation": (_series(records, f"val_{KEYS[name]}"), VERMILION),
    }


def _stage_names(records: Sequence[EpochRecord]) -> list[str]:
    if not records:
        raise ValueError("a chart by epoch needs at least one epoch")
    return [stage.name for stage in records[0].stages]


def _colours(stages: Sequence[str]) -> tuple[tuple[str, str], ...]:
    return ONLY_STAGE if len(stages) == 1 else TWO_STAGES


def _of_stage(
    records: Sequence[EpochRecord],
    number: int,
    split: str,
    number_of: Callable[[HeatmapMetrics], float | None],
) -> np.ndarray:
    stages = [record.stages[number] for record in records]
    every = [number_of(stage.train if split == "training" else stage.val) for stage in stages]
    return np.array([np.nan if value is None else value for value in every], float)


def _sigma_changes(
    records: Sequence[EpochRecord], stage: int
) -> list[tuple[EpochRecord, EpochRecord]]:
    sigmas = [record.sigmas_voxels[stage] for record in records]
    pairs = zip(pairwise(records), pairwise(sigmas), strict=True)
    return [pair for pair, (before, after) in pairs if before != after]


def _any_sigma_changes(records: Sequence[EpochRecord]) -> bool:
    return len({record.sigmas_voxels for record in records}) > 1


def _draw_curves(
    axes: Axes, records: Sequence[EpochRecord], curves: Mapping[str, tuple[np.ndarray, str]]
) -> None:
    """Draw curves by epoch, on a log scale where positive values span more than a decade."""
    epochs = [record.epoch for record in records]
    style: Style = {"marker": "o" if len(epochs) <= 40 else None, "markersize": 4, "linewidth": 1.8}
    for name, (values, colour) in curves.items():
        step: Style = (
            {"drawstyle": "steps-mid", "linestyle": "--"} if name.startswith("sigma") else {}
        )
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
    stage: int,
    minimum_sigma_voxels: float | None = None,
    labelled: bool = False,
    colour: str = GREY,
) -> None:
    """Mark every change of a stage's sigma, and shade the epochs at its minimum."""
    room, free_from = 0.025 * len(records), -np.inf  # epochs that one upright label takes
    for number, (before, after) in enumerate(_sigma_changes(records, stage)):
        x = (before.epoch + after.epoch) / 2
        label = "_" * bool(number) + f"sigma changes{' (voxels, above)' * labelled}"
        axes.axvline(x, color=colour, linestyle=":", linewidth=1.2, label=label, zorder=0)
        if labelled and x >= free_from:
            place: Style = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            shown: Style = {"rotation": 90, "size": 10, **place}
            if colour != GREY:
                shown["color"] = colour
            axes.text(x, 1.01, f"{after.sigmas_voxels[stage]:.2f}", **shown)
            free_from = x + room
    lowest = [r.epoch for r in records if r.sigmas_voxels[stage] <= (minimum_sigma_voxels or -1)]
    if lowest:
        label = f"sigma at its minimum, {minimum_sigma_voxels:g}"
        axes.axvspan(lowest[0] - 0.5, lowest[-1] + 0.5, color="0.92", zorder=-1, label=label)
