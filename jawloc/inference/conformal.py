"""The conformal radius: how large a sphere round the found point holds the truth in 90 % of scans.

Split conformal prediction: whatever the distribution of errors, the k-th smallest of n errors is
exceeded by a new scan's with probability at most 1 - k / (n + 1), as long as the scans are
exchangeable. Errors are divided by the heatmap's width first, so that the radius grows where the
network is uncertain (Lei et al., J. Am. Stat. Assoc. 113, 2018, section 5.2). Scans of one specimen
are not exchangeable with those of others, so each specimen counts once, by its worst scan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Spreads below this (voxels) say nothing: they are rounding.
LEAST_SPREAD = 1e-3
# Specimens that a radius needs. The share of new specimens that the largest of n ratios holds
# varies with the n that were drawn, as Beta(n, 1): with 6, it is below 0.6 in one of 21
# calibrations; with one, in more than half.
LEAST_SPECIMENS = 6


@dataclass(frozen=True)
class Conformal:
    """The radius that held the truth in the calibration scans.

    Attributes
    ----------
    factor : radius, as a multiple of the probability map's width
    confidence : share of new scans whose truth lies inside, at least; lower than what was asked
        for where there are too few specimens to support that
    specimens : how many it was calibrated on
    """

    factor: float
    confidence: float
    specimens: int

    def radius(self, spread: float) -> float:
        """Return the radius for a map of this spread, in the spread's unit."""
        return self.factor * max(spread, LEAST_SPREAD)


def calibrate_radius(
    errors: Sequence[float],
    spreads: Sequence[float],
    confidence: float,
    specimens: Sequence[str] | None = None,
) -> Conformal | None:
    """Learn how large the radius must be.

    Parameters
    ----------
    errors : radial error of each scan, in voxels
    spreads : width of each scan's probability map, in the same unit
    confidence : the share of new scans that is asked for, above 0 and below 1
    specimens : of which each scan is, each specimen counting once, by its largest ratio of error to
        width; without them, each scan is a specimen of its own

    Returns
    -------
    None with fewer than `LEAST_SPECIMENS`. With fewer than are needed for `confidence`, the largest
    ratio that was seen, and the confidence that so many specimens support: n / (n + 1).
    """
    ratios = np.asarray(errors, float) / np.maximum(np.asarray(spreads, float), LEAST_SPREAD)
    names = range(len(ratios)) if specimens is None else specimens
    worst: dict[object, float] = {}
    for name, ratio in zip(names, ratios, strict=True):
        worst[name] = max(worst.get(name, 0.0), float(ratio))
    n, ranked = len(worst), sorted(worst.values())
    if n < LEAST_SPECIMENS:
        return None
    rank = math.ceil((n + 1) * confidence - 1e-9)  # 0.9 of 10 is 9, whatever floats say
    if rank > n:
        return Conformal(ranked[-1], n / (n + 1), n)
    return Conformal(ranked[rank - 1], confidence, n)


def ensemble_error_ratio(
    first: np.ndarray, second: np.ndarray, networks: int, specimens: Sequence[str]
) -> float:
    """Return how large the error of averaged networks is, as a share of a single one's.

    Where single networks are wrong in the same way, averaging does not help; where they differ, it
    does: with a single network's mean square error e and the variance v between networks, that of
    the mean of n is e - (1 - 1/n) v. Both are estimated from scans that two networks have not
    learned from, less one standard error (jackknife over specimens), so that the ratio is rather
    too large.

    Parameters
    ----------
    first, second : arrays, shape (scan, 3)
        Found minus true position of two networks, in any unit; or as a multiple of the map's width.
    networks : how many are averaged
    specimens : of which each scan is

    Returns
    -------
    float, at most 1; 1 with fewer than `LEAST_SPECIMENS`
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
