"""Errors of an evaluation: how large, how well predicted, in which direction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jawloc.inference.quantities import UNIT_NAMES, counted
from jawloc.reporting.figures.style import ROUND, STYLE, Colour, Style, blank_chart, label_log_axis

if TYPE_CHECKING:  # would load torch, which no picture needs
    from jawloc.inference.metrics import Bias

LEAST = 1e-3  # of what is shown on a log scale
STATUS_STYLES: Mapping[str, Style] = {
    "ok": {"color": Colour.BLUE, "marker": "o"},
    "uncertain": {"color": Colour.ORANGE, "marker": "^"},
    "not found": {"color": Colour.VERMILION, "marker": "s"},
}


@rc_context(STYLE)
def plot_success(errors: np.ndarray, unit: str, radii: Sequence[float], name: str) -> Figure:
    """Show how an object's radial errors (scan,) are distributed, and the share within each radius.

    The unit, mm or full_size_voxels, is that of the errors and of the radii.
    """
    errors = np.sort(np.asarray(errors, float))
    figure = blank_chart(4.6)
    left, right = figure.subplots(1, 2)
    bins = min(20, max(5, round(2 * len(errors) ** 0.5)))
    left.hist(errors, bins=bins, color=Colour.BLUE, ec="white")
    left.axvline(errors.mean(), color=Colour.BLACK, label=f"mean {errors.mean():.3g}")
    median = float(np.median(errors))
    left.axvline(median, color=Colour.GREEN, linestyle="--", label=f"median {median:.3g}")
    left.set_xlim(left=0)
    left.set_ylabel("number of scans")
    left.yaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(loc="best", frameon=True)
    _draw_cumulative(right, errors, radii)
    for axes in (left, right):
        axes.set_xlabel(f"radial error ({UNIT_NAMES[unit]})")
        axes.grid(alpha=0.25)
    figure.suptitle(
        f"Errors of the {name} in {counted(len(errors), 'scan')}", size=13, parse_math=False
    )
    return figure


def _draw_cumulative(axes: Axes, errors: np.ndarray, radii: Sequence[float]) -> None:
    end = max(1.05 * max(errors[-1], *radii, 0), LEAST)
    shares = np.arange(len(errors) + 1) / len(errors)
    axes.step([0, *errors, end], [*shares, 1.0], where="post", color=Colour.BLUE, linewidth=2)
    for radius in radii:
        share = float(np.mean(errors <= radius))
        axes.plot([radius, radius, 0], [0, share, share], color="0.6", linestyle=":", linewidth=1.2)
        label = f"{100 * share:.0f} % within {radius:g}"
        axes.plot(radius, share, "o", color=Colour.VERMILION, markersize=6, label=label)
    axes.set(xlim=(0, end), ylim=(0, 1.06), ylabel="scans with at most this error (SDR)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if len(radii):
        axes.legend(loc="best", frameon=True)


@rc_context(STYLE)
def plot_trust(
    errors: np.ndarray, foretold: np.ndarray, statuses: Sequence[str], *, what: str, name: str
) -> Figure:
    """Show each scan's error against the model's own uncertainty, on log scales.

    All arrays are (scan,), in voxels of the full-size scan; `what` names the uncertainty.
    """
    x, y = np.maximum(foretold, LEAST), np.maximum(errors, LEAST)
    limits = min(x.min(), y.min()) / 1.5, max(x.max(), y.max()) * 1.5
    figure = blank_chart(6.2, 7.5)
    axes = figure.add_subplot()
    for status, style in STATUS_STYLES.items():
        own = np.array([one == status for one in statuses])
        if own.any():
            label = f"{status} ({int(own.sum())})"
            axes.plot(x[own], y[own], linestyle="none", alpha=0.8, label=label, **style)
    axes.plot(limits, limits, color=Colour.BLACK, linewidth=1.2, label=f"error = {what}")
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        label_log_axis(axis)
    unit = f"({UNIT_NAMES['full_size_voxels']})"
    axes.set(xlabel=f"{what} {unit}", ylabel=f"radial error {unit}")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", frameon=True)
    above = f"{int(np.sum(errors > foretold))} of {len(x)} above the line"
    axes.set_title(f"Error of the {name} against its {what}: {above}", parse_math=False)
    return figure


@rc_context(STYLE)
def plot_bias(offsets: np.ndarray, bias: Mapping[str, Bias], unit: str, name: str) -> Figure:
    """Show signed errors (scan, 3) along z, y and x, with their means over specimens, by axis."""
    offsets = np.asarray(offsets, float)
    n = len(offsets)
    figure = blank_chart(4.6, 9.5)
    axes = figure.add_subplot()
    beside = np.linspace(-0.25, 0.25, n) if n > 1 else np.zeros(1)
    for row in range(3):
        label = "one scan" if row == 0 else None
        axes.plot(row + beside, offsets[:, row], "o", color=Colour.BLUE, alpha=0.6, label=label)
    means = [own.mean for own in bias.values()]
    errors = [own.standard_error for own in bias.values() if own.standard_error is not None]
    style: Style = {
        "fmt": "D",
        "color": Colour.VERMILION,
        "capsize": 8,
        "linewidth": 2,
        "zorder": 3,
    }
    label = "mean ± standard error,\nover specimens" if errors else "mean"
    axes.errorbar(range(3), means, yerr=errors or None, label=label, **style)
    axes.axhline(0, color=Colour.BLACK, linewidth=1)
    axes.set_xticks(range(3), list(bias))
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=ROUND))
    axes.set(xlim=(-0.5, 2.5), xlabel="axis", ylabel=f"predicted minus true ({UNIT_NAMES[unit]})")
    axes.grid(alpha=0.25, axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    axes.set_title(f"Signed errors of the {name}", parse_math=False)
    return figure
