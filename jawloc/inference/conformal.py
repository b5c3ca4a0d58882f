"""The conformal radius: of a sphere round the found point that holds the truth in 90 % of scans.

Split conformal prediction: whatever the distribution of errors, a new scan's exceeds the k-th
smallest of n with probability at most 1 - k / (n + 1), if the scans are exchangeable. Errors are
divided by the heatmap's width, so that the radius grows with the network's uncertainty (Lei et al.,
J. Am. Stat. Assoc. 113, 2018, section 5.2). Scans of one specimen are not exchangeable with those
of others, so each specimen counts once, by its worst scan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_WIDTH = 1e-3  # voxels; smaller widths are rounding errors
# Specimens that a radius needs. The share of new specimens that the largest of n ratios holds is
# distributed as Beta(n, 1): with 6, it is below 0.6 in one of 21 calibrations; with one, in more
# than half.
LEAST_SPECIMENS = 6


@dataclass(frozen=True)
class Conformal:
    """The radius that held the truth in the calibration scans."""

    factor: float  # radius, as a multiple of the heatmap's width
    confidence: float  # least share of new scans whose truth lies inside
    specimens: int  # number of specimens it was calibrated on

    def radius(self, width: float) -> float:
        """Return the radius for a heatmap of this width, in the width's unit."""
        return self.factor * max(width, LEAST_WIDTH)


def calibrate_radius(
    errors: Sequence[float],
    widths: Sequence[float],
    confidence: float,
    specimens: Sequence[str] | None = None,
) -> Conformal | None:
    """Calibrate the radius that holds the truth in a share `confidence` of new scans.

    Errors and widths of the heatmaps, one a scan, are in one unit. Without specimens' names, each
    scan is a specimen of its own. Fewer than `LEAST_SPECIMENS` give None; fewer than `confidence`
    needs give the largest ratio, and the confidence that n specimens support: n / (n + 1).
    """
    ratios = np.asarray(errors, float) / np.maximum(np.asarray(widths, float), LEAST_WIDTH)
    names = range(len(ratios)) if specimens is None else specimens
    worst: dict[object, float] = {}
    for name, ratio in zip(names, ratios, strict=True):
        worst[name] = max(worst.get(name, 0.0), float(ratio))
    n, ranked = len(worst), sorted(worst.values())
    if n < LEAST_SPECIMENS:
        return None
    rank = math.ceil((n + 1) * confidence - 1e-9)  # 0.9 of 10 is 9 in spite of rounding
    if rank > n:
        return Conformal(ranked[-1], n / (n + 1), n)
    return Conformal(ranked[rank - 1], confidence, n)


def ensemble_error_ratio(
    first: np.ndarray, second: np.ndarray, networks: int, specimens: Sequence[str]
) -> float:
    """Return the error of an ensemble as a share, at most 1, of a single network's.

    With a single network's mean square error e and the variance v between networks, that of the
    mean of n networks is e - (1 - 1/n) v. Both are estimated from scans that two networks have not
    learned from; v / e is lowered by one standard error (jackknife over specimens), so that the
    ratio is rather too large. With fewer than `LEAST_SPECIMENS` it is 1.

    `first` and `second` (scan, 3) are the two networks' found minus true positions in any unit,
    `networks` is the size of the ensemble, `specimens` names each scan's specimen.
    """
    if len(set(specimens)) < LEAST_SPECIMENS:
        return 1.0
    single = (np.square(first).sum(-1) + np.square(second).sum(-1)) / 2
    between = np.square(np.subtract(first, second)).sum(-1) / 2
    names = np.asarray(specimens)
    left_out = [_share(between[names != name], single[names != name]) for name in np.unique(names)]
    n = len(left_out)
    error = math.sqrt((n - 1) / n * float(np.sum((np.array(left_out) - np.mean(left_out)) ** 2)))
    share = min(max(_share(between, single) - error, 0.0), 1.0)
    return math.sqrt(1 - (1 - 1 / networks) * share)


def _share(between: np.ndarray, single: np.ndarray) -> float:
    total = float(single.sum())
    return float(between.sum()) / total if total > 0 else 0.0
