"""Curves of a training run, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    from jawloc.training.loop import EpochRecord

KEYS = {"kl": "kl_nats", "dice": "dice", "mse": "mse"}  # of EpochRecord.flat(), after the split
LABELS = {
    "kl": "KL divergence (nats)",
    "dice": "Dice score (1 is perfect)",
    "mse": "mean squared error (probability²)",
}


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
    """Show sigma beside the validation error that it led to, in voxels, and in mm where known.

    Of several objects, each has a curve of its own mean error.
    """
    units = ["voxels"] + ["mm"] * any("val_error_mm" in record.flat() for record in records)
    errors = _series(records, "val_error_voxels")  # the best epoch is the best by this, as in fit()
    objects = list(dict.fromkeys(name for record in records for name in record.val.by_object))
    names = {"": ("mean", VERMILION), "_median": ("median", ORANGE), "_max": ("largest", PURPLE)}
    with rc_context(STYLE):
        figure = _blank_chart(5.8)
        for axes, unit in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
            curves = (
                {"sigma": (_series(records, "sigma_voxels"), BLACK)} if unit == "voxels" else {}
            )
            for ending, (name, colour) in names.items():
                curves[f"{name} error"] = (_series(records, f"val_error_{unit}{ending}"), colour)
            for name, colour in zip(objects, cycle((BLUE, SKY, GREEN, "0.5")), strict=False):
                own = _series(records, f"val_error_{name}_{unit}")
                curves[f"mean error of {name}"] = (own, colour)
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
