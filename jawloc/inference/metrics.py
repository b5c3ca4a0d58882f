"""Many evaluated scans -> radial errors, SDR, crops, radius coverage and bias of each object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jawloc.inference.evaluate_scan import ScanError, ScanEvaluation

Unit = Literal["downsampled_voxels", "full_size_voxels", "mm"]
UNITS: tuple[Unit, ...] = ("downsampled_voxels", "full_size_voxels", "mm")
AXES = ("z", "y", "x")
STATUSES = ("ok", "uncertain", "not found")
# Radii within which an object counts as found, unless the user says others.
USUAL_RADII: Mapping[str, tuple[float, ...]] = {
    "mm": (0.1, 0.2, 0.5, 1.0),
    "full_size_voxels": (5.0, 10.0, 25.0, 50.0),
}
CONFIDENCE = 0.95  # of the interval round the coverage


@dataclass(frozen=True)
class ErrorSummary:
    """Radial errors of some scans in one unit; `median` and `percentile_95` interpolate."""

    mean: float  # mean radial error, MRE
    median: float
    percentile_95: float
    worst: float


def summarise_errors(values: np.ndarray) -> ErrorSummary:
    """Summarise radial errors, shape (scan,), at least one; percentiles interpolate."""
    return ErrorSummary(
        mean=float(values.mean()),
        median=float(np.median(values)),
        percentile_95=float(np.percentile(values, 95)),
        worst=float(values.max()),
    )


@dataclass(frozen=True)
class PositionErrors:
    """The errors of one way to find the objects, on a list of scans."""

    errors: tuple[ScanError, ...]

    def select(self, object_name: str) -> PositionErrors:
        """Return the errors of one object."""
        return PositionErrors(tuple(e for e in self.errors if e.object_name == object_name))

    def summary(self, unit: Unit) -> ErrorSummary | None:
        """Summarise the errors in a unit; None without scans, or where mm are unknown."""
        values = [getattr(e, f"error_{unit}") for e in self.errors]
        return None if None in values or not values else summarise_errors(np.array(values))

    def worst(self) -> ScanError:
        """Return the largest error, in downsampled voxels."""
        return max(self.errors, key=lambda e: e.error_downsampled_voxels)


@dataclass(frozen=True)
class Success:
    """Successful detection rate (SDR): the share of scans with an error of at most `radius`."""

    radius: float
    scans: int
    share: float


@dataclass(frozen=True)
class Crops:
    """How much of the object the crops round the found positions hold.

    Attributes
    ----------
    whole : how many crops hold all of the object's labelled voxels
    mean_share, least_share : of the labelled voxels of a scan
    """

    whole: int
    scans: int
    mean_share: float
    least_share: float


@dataclass(frozen=True)
class Coverage:
    """Whether the ball of the stated radius holds the truth as often as it says.

    Attributes
    ----------
    inside : how many truths lie inside, of `scans` that have a radius
    specimens : how many these are of
    stated : the confidence that the model states
    lowest, highest : what the true share may be, in view of so few specimens (95 %,
        Clopper-Pearson; scans of one specimen count as one, in part inside if some are)
    """

    inside: int
    scans: int
    specimens: int
    share: float
    stated: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Bias:
    """Mean of found minus true along one axis, over specimens.

    The standard error is that over specimens, too; None for one.
    """

    mean: float
    standard_error: float | None


@dataclass(frozen=True)
class StatusErrors:
    """The scans of one status; errors in voxels of the full-size scan and in mm, by unit."""

    scans: int
    mean_error: Mapping[str, float]
    worst_error: Mapping[str, float]


@dataclass(frozen=True)
class ObjectMetrics:
    """How well one object is found in some scans.

    Attributes
    ----------
    specimens : how many the scans are of
    errors : by unit; mm only where every scan's spacing is known
    success : in `success_unit`
    coverage : None where the model states no radius
    spread_correlation : Spearman's, between the probability map's width and the error; None for
        fewer than three scans or where one of the two doesn't vary
    statuses : those that occur
    bias : by unit (full_size_voxels, mm), then by axis
    """

    scans: int
    specimens: int
    errors: Mapping[str, ErrorSummary]
    success_unit: str
    success: tuple[Success, ...]
    crops: Crops
    coverage: Coverage | None
    spread_correlation: float | None
    statuses: Mapping[str, StatusErrors]
    bias: Mapping[str, Mapping[str, Bias]]


def common_unit(evaluated: Sequence[ScanEvaluation]) -> Unit:
    """Return mm where every scan's spacing is known, else voxels of the full-size scan."""
    known = all(m.error.error_mm is not None for m in evaluated)
    return "mm" if known and evaluated else "full_size_voxels"


def errors_in(evaluated: Sequence[ScanEvaluation], unit: str) -> np.ndarray:
    """Return the radial errors in a unit, shape (scan,); NaN where it is unknown."""
    return np.array([getattr(m.error, f"error_{unit}") for m in evaluated], float)


def object_metrics(
    evaluated: Sequence[ScanEvaluation], radii: Sequence[float] = (), unit: str = ""
) -> ObjectMetrics:
    """Reduce the measured scans of one object, at least one, to numbers.

    Parameters
    ----------
    radii : of the successful detection rate, in `unit`; without any, the usual ones
    unit : full_size_voxels or mm; without one, mm where every scan's spacing is known
    """
    unit = unit or common_unit(evaluated)
    known = {u: e for u in UNITS if np.isfinite(e := errors_in(evaluated, u)).all()}
    in_voxels = errors_in(evaluated, "full_size_voxels")
    return ObjectMetrics(
        scans=len(evaluated),
        specimens=len({m.specimen for m in evaluated}),
        errors={u: summarise_errors(values) for u, values in known.items()},
        success_unit=unit,
        success=success_rates(errors_in(evaluated, unit), radii or USUAL_RADII[unit]),
        crops=_crops(evaluated),
        coverage=radius_coverage(evaluated),
        spread_correlation=_correlation([m.found.width_voxels for m in evaluated], in_voxels),
        statuses=_statuses(evaluated),
        bias=_bias(evaluated),
    )


def success_rates(errors: np.ndarray, radii: Sequence[float]) -> tuple[Success, ...]:
    """Return the successful detection rate at each radius, the smallest first."""
    counts = [(r, int(np.count_nonzero(errors <= r))) for r in sorted(set(radii))]
    return tuple(Success(float(r), count, count / len(errors)) for r, count in counts)


def ranked(evaluated: Sequence[ScanEvaluation]) -> list[ScanEvaluation]:
    """Return the worst first: by mm where every scan's spacing is known, else by voxels."""
    unit = common_unit(evaluated)
    return sorted(evaluated, key=lambda m: -getattr(m.error, f"error_{unit}"))


def _crops(evaluated: Sequence[ScanEvaluation]) -> Crops:
    shares = [m.inside for m in evaluated]
    whole = sum(m.inside_voxels == m.labelled_voxels for m in evaluated)
    return Crops(whole, len(evaluated), float(np.mean(shares)), float(min(shares)))


def radius_coverage(evaluated: Sequence[ScanEvaluation]) -> Coverage | None:
    """Count how often the stated radius holds the truth; None where no scan has a radius."""
    stated = [
        (m, bool(m.error.error_full_size_voxels <= m.found.radius_voxels), m.found.confidence)
        for m in evaluated
        if m.found.radius_voxels is not None and m.found.confidence is not None
    ]
    if not stated:
        return None
    held = by_specimen([m for m, *_ in stated], [float(inside) for _, inside, _ in stated])
    lowest, highest = _clopper_pearson(sum(held.values()), len(held))
    inside = sum(inside for _, inside, _ in stated)
    return Coverage(
        inside=inside,
        scans=len(stated),
        specimens=len(held),
        share=inside / len(stated),
        stated=min(confidence for *_, confidence in stated),
        lowest=lowest,
        highest=highest,
    )


def by_specimen(evaluated: Sequence[ScanEvaluation], values: Sequence[Any]) -> dict[str, Any]:
    """Return the mean over each specimen's scans, which are not independent of each other."""
    every: dict[str, list[Any]] = {}
    for m, value in zip(evaluated, values, strict=True):
        every.setdefault(m.specimen, []).append(value)
    return {name: np.mean(own, axis=0) for name, own in every.items()}


def _clopper_pearson(inside: float, n: int) -> tuple[float, float]:
    """Return the exact interval of a share; of `n` specimens, some may be inside in part."""
    from scipy import stats  # takes seconds to import, and a training needs none of it

    tail = (1 - CONFIDENCE) / 2
    low = stats.beta.ppf(tail, inside, n - inside + 1) if inside > 0 else 0.0
    high = stats.beta.isf(tail, inside + 1, n - inside) if inside < n else 1.0
    return float(low), float(high)


def _correlation(spreads: Sequence[float], errors: np.ndarray) -> float | None:
    if len(errors) < 3 or np.ptp(spreads) == 0 or np.ptp(errors) == 0:
        return None
    from scipy import stats  # as above

    return float(stats.spearmanr(spreads, errors).statistic)


def _statuses(evaluated: Sequence[ScanEvaluation]) -> dict[str, StatusErrors]:
    every = {}
    for status in STATUSES:
        own = [m for m in evaluated if m.found.status == status]
        known = {u: e for u in UNITS[1:] if own and np.isfinite(e := errors_in(own, u)).all()}
        if own:
            every[status] = StatusErrors(
                scans=len(own),
                mean_error={u: float(e.mean()) for u, e in known.items()},
                worst_error={u: float(e.max()) for u, e in known.items()},
            )
    return every


def _bias(evaluated: Sequence[ScanEvaluation]) -> dict[str, dict[str, Bias]]:
    in_mm = [m.offset_mm for m in evaluated if m.offset_mm is not None]
    offsets = {"full_size_voxels": [m.offset_voxels for m in evaluated]}
    if len(in_mm) == len(evaluated):
        offsets["mm"] = in_mm
    return {
        unit: _bias_by_axis(np.array([*by_specimen(evaluated, values).values()]))
        for unit, values in offsets.items()
    }


def _bias_by_axis(offsets: np.ndarray) -> dict[str, Bias]:
    n = len(offsets)
    errors = offsets.std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else [None] * 3
    return {
        axis: Bias(float(mean), None if error is None else float(error))
        for axis, mean, error in zip(AXES, offsets.mean(axis=0), errors, strict=True)
    }
