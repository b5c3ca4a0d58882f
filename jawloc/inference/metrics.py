"""Many evaluated scans -> radial errors, SDR, crops, radius coverage and bias of each object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jawloc.inference.evaluate_scan import ScanError, ScanEvaluation

Unit = Literal["downsampled_voxels", "full_size_voxels", "mm"]
UNITS: tuple[Unit, ...] = ("downsampled_voxels", "full_size_voxels", "mm")
AXES = ("z", "y", "x")
STATUSES = ("ok", "uncertain", "not found")
# Radii within which an object counts as found, unless the user gives others.
DEFAULT_RADII: Mapping[str, tuple[float, ...]] = {
    "mm": (0.1, 0.2, 0.5, 1.0),
    "full_size_voxels": (5.0, 10.0, 25.0, 50.0),
}


@dataclass(frozen=True)
class ErrorSummary:
    """Radial errors of some scans in one unit; `median` and `percentile_95` interpolate."""

    mean: float  # mean radial error, MRE
    median: float
    percentile_95: float
    worst: float


def summarise_errors(values: Sequence[float | None]) -> ErrorSummary | None:
    """Summarise radial errors; None without any, or where one is unknown."""
    if not values or None in values:
        return None
    errors = np.array(values, float)
    return ErrorSummary(
        mean=float(errors.mean()),
        median=float(np.median(errors)),
        percentile_95=float(np.percentile(errors, 95)),
        worst=float(errors.max()),
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
        return summarise_errors([getattr(e, f"error_{unit}") for e in self.errors])

    def worst(self) -> ScanError:
        """Return the largest error, in downsampled voxels."""
        return max(self.errors, key=lambda e: e.error_downsampled_voxels)


@dataclass(frozen=True)
class SuccessRate:
    """Successful detection rate (SDR): the share of scans with an error of at most `radius`."""

    radius: float
    scans: int
    share: float


@dataclass(frozen=True)
class CropCoverage:
    """How many crops hold all of the labelled voxels, and which share of a scan's they hold."""

    whole: int
    scans: int  # that have a mask
    mean_share: float
    least_share: float


@dataclass(frozen=True)
class RadiusCoverage:
    """How often the truth lies within the stated radius.

    `lowest` and `highest` are the 95 % interval of the share of specimens (Clopper-Pearson), of
    which one of several scans counts by the share of these that is inside.
    """

    inside: int
    scans: int  # that have a radius
    specimens: int
    share: float
    stated: float  # the model's confidence
    lowest: float
    highest: float


@dataclass(frozen=True)
class Bias:
    """Mean of found minus true along one axis, and its standard error, over specimens."""

    mean: float
    standard_error: float | None  # None for one specimen


@dataclass(frozen=True)
class StatusErrors:
    """The scans of one status; errors by unit, full_size_voxels and mm."""

    scans: int
    mean_error: Mapping[str, float]
    worst_error: Mapping[str, float]


@dataclass(frozen=True)
class ObjectMetrics:
    """How well one object is found in some scans.

    Attributes
    ----------
    errors : by unit; mm only where every scan's spacing is known
    success : in `success_unit`
    crops : None where no scan has a mask
    coverage : None where the model states no radius
    spread_correlation : Spearman's, between the probability map's width and the error; None for
        fewer than three scans or where one of the two doesn't vary
    bias : by unit (full_size_voxels, mm), then by axis
    """

    scans: int
    specimens: int
    errors: Mapping[str, ErrorSummary]
    success_unit: str
    success: tuple[SuccessRate, ...]
    crops: CropCoverage | None
    coverage: RadiusCoverage | None
    spread_correlation: float | None
    statuses: Mapping[str, StatusErrors]
    bias: Mapping[str, Mapping[str, Bias]]


def common_unit(evaluated: Sequence[ScanEvaluation]) -> Unit:
    """Return mm where every scan's spacing is known, else voxels of the full-size scan."""
    known = all(scan.error.error_mm is not None for scan in evaluated)
    return "mm" if known and evaluated else "full_size_voxels"


def errors_in(evaluated: Iterable[ScanEvaluation], unit: str) -> list[Any]:
    """Return the radial errors in a unit; None where it is unknown."""
    return [getattr(scan.error, f"error_{unit}") for scan in evaluated]


def _summaries(evaluated: Sequence[ScanEvaluation]) -> dict[str, ErrorSummary]:
    every = {unit: summarise_errors(errors_in(evaluated, unit)) for unit in UNITS}
    return {unit: summary for unit, summary in every.items() if summary is not None}


def object_metrics(
    evaluated: Sequence[ScanEvaluation], radii: Sequence[float] = (), unit: str = ""
) -> ObjectMetrics:
    """Return the metrics of one object in the scans that show it, at least one.

    Parameters
    ----------
    radii : of the successful detection rate, in `unit`; empty: the default ones
    unit : full_size_voxels or mm; empty: mm where every scan's spacing is known
    """
    unit = unit or common_unit(evaluated)
    return ObjectMetrics(
        scans=len(evaluated),
        specimens=len({scan.specimen for scan in evaluated}),
        errors=_summaries(evaluated),
        success_unit=unit,
        success=success_rates(np.array(errors_in(evaluated, unit)), radii or DEFAULT_RADII[unit]),
        crops=crop_coverage([scan.inside for scan in evaluated if scan.inside is not None]),
        coverage=radius_coverage(evaluated),
        spread_correlation=_correlation(
            [scan.found.width_voxels for scan in evaluated],
            errors_in(evaluated, "full_size_voxels"),
        ),
        statuses=_statuses(evaluated),
        bias=_bias(evaluated),
    )


def crop_coverage(shares: Sequence[float]) -> CropCoverage | None:
    """Return the coverage of each scan's crop, from its share of labelled voxels; None of none."""
    if not shares:
        return None
    return CropCoverage(
        whole=sum(share == 1.0 for share in shares),
        scans=len(shares),
        mean_share=float(np.mean(shares)),
        least_share=min(shares),
    )


def success_rates(errors: np.ndarray, radii: Sequence[float]) -> tuple[SuccessRate, ...]:
    """Return the successful detection rate at each radius, the smallest first."""
    counts = [(r, int(np.count_nonzero(errors <= r))) for r in sorted(set(radii))]
    return tuple(SuccessRate(float(r), count, count / len(errors)) for r, count in counts)


def ranked(evaluated: Sequence[ScanEvaluation]) -> list[ScanEvaluation]:
    """Return the worst first: by mm where every scan's spacing is known, else by voxels."""
    unit = common_unit(evaluated)
    return sorted(evaluated, key=lambda scan: -getattr(scan.error, f"error_{unit}"))


def radius_coverage(evaluated: Sequence[ScanEvaluation]) -> RadiusCoverage | None:
    """Count how often the truth lies within the stated radius; None where no scan has a radius."""
    stated = [
        (scan, scan.error.error_full_size_voxels <= scan.found.radius_voxels, scan.found.confidence)
        for scan in evaluated
        if scan.found.radius_voxels is not None and scan.found.confidence is not None
    ]
    if not stated:
        return None
    scans, inside, confidences = zip(*stated, strict=True)
    shares = by_specimen(scans, inside)
    lowest, highest = _clopper_pearson(sum(shares.values()), len(shares))
    return RadiusCoverage(
        inside=sum(map(int, inside)),
        scans=len(stated),
        specimens=len(shares),
        share=sum(map(int, inside)) / len(stated),
        stated=min(confidences),
        lowest=lowest,
        highest=highest,
    )


def by_specimen(evaluated: Sequence[ScanEvaluation], values: Sequence[Any]) -> dict[str, Any]:
    """Return the mean over each specimen's scans, which are not independent of each other."""
    every: dict[str, list[Any]] = {}
    for scan, value in zip(evaluated, values, strict=True):
        every.setdefault(scan.specimen, []).append(value)
    return {name: np.mean(own, axis=0) for name, own in every.items()}


def _clopper_pearson(inside: float, n: int) -> tuple[float, float]:
    from scipy import stats  # takes seconds to import, and a training needs none of it

    # the exact 95 % interval of a share; of `n` specimens, some may be inside in part
    tail = (1 - 0.95) / 2
    low = stats.beta.ppf(tail, inside, n - inside + 1) if inside > 0 else 0.0
    high = stats.beta.isf(tail, inside + 1, n - inside) if inside < n else 1.0
    return float(low), float(high)


def _correlation(spreads: Sequence[float], errors: Sequence[float]) -> float | None:
    if len(errors) < 3 or np.ptp(spreads) == 0 or np.ptp(errors) == 0:
        return None
    from scipy import stats  # as above

    return float(stats.spearmanr(spreads, errors).statistic)


def _statuses(evaluated: Sequence[ScanEvaluation]) -> dict[str, StatusErrors]:
    every = {}
    for status in STATUSES:
        if own := [scan for scan in evaluated if scan.found.status == status]:
            known = {u: e for u, e in _summaries(own).items() if u != "downsampled_voxels"}
            means = {unit: errors.mean for unit, errors in known.items()}
            worst = {unit: errors.worst for unit, errors in known.items()}
            every[status] = StatusErrors(len(own), means, worst)
    return every


def _bias(evaluated: Sequence[ScanEvaluation]) -> dict[str, dict[str, Bias]]:
    found = {}
    for unit, offset in (("full_size_voxels", "offset_voxels"), ("mm", "offset_mm")):
        values = [getattr(scan, offset) for scan in evaluated]
        if any(value is None for value in values):
            continue
        offsets = np.array([*by_specimen(evaluated, values).values()])
        means, n = offsets.mean(axis=0).tolist(), len(offsets)
        errors = (offsets.std(axis=0, ddof=1) / np.sqrt(n)).tolist() if n > 1 else [None] * 3
        found[unit] = dict(zip(AXES, map(Bias, means, errors), strict=True))
    return found
