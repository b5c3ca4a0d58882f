"""How far off a position may be, and how odd a scan is, learned from scans with a known truth.

Two questions that a few held-out scans answer:

- *How large must a ball round the found point be, to hold the truth in 90 of 100 new scans?*
  Split conformal prediction: whatever the distribution of errors, the k-th smallest of n errors is
  exceeded by a new scan's with probability at most 1 - k / (n + 1), as long as the scans are
  exchangeable. Errors are divided by the map's spread first, so that the ball grows where the
  network is unsure (Lei et al., J. Am. Stat. Assoc. 113, 2018, section 5.2).
- *Is this number of a scan one that good scans have?* The prediction interval of a normal
  distribution whose mean and standard deviation were estimated from few scans (Student's t).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes seconds to import

# Spreads below this (voxels) say nothing: they are rounding.
LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Conformal:
    """The ball that held the truth in the calibration scans.

    Attributes
    ----------
    factor : radius of the ball, as a multiple of the probability map's spread
    confidence : share of new scans whose truth lies inside, at least; lower than what was asked
        for where there are too few scans to support that
    scans : how many scans it was calibrated on
    """

    factor: float
    confidence: float
    scans: int

    def radius(self, spread: float) -> float:
        """Return the radius for a map of this spread, in the spread's unit."""
        return self.factor * max(spread, LEAST_SPREAD)


def calibrate_radius(
    errors: Sequence[float], spreads: Sequence[float], confidence: float
) -> Conformal | None:
    """Learn how large the ball must be.

    Parameters
    ----------
    errors : radial error of each scan, in voxels
    spreads : spread of each scan's probability map, in the same unit
    confidence : the share of new scans that is asked for, above 0 and below 1

    Returns
    -------
    None without scans. With fewer than are needed for `confidence`, the largest ratio that was
    seen, and the confidence that so many scans support: n / (n + 1).
    """
    n = len(errors)
    if n == 0:
        return None
    ratios = np.sort(np.asarray(errors, float) / np.maximum(spreads, LEAST_SPREAD))
    rank = math.ceil((n + 1) * confidence - 1e-9)  # 0.9 of 10 is 9, whatever floats say
    if rank > n:
        return Conformal(float(ratios[-1]), n / (n + 1), n)
    return Conformal(float(ratios[rank - 1]), confidence, n)


@dataclass(frozen=True)
class UsualRange:
    """What a number of good scans is like: normal, with a mean and a deviation from few scans.

    Attributes
    ----------
    mean, deviation : of the calibration scans
    scans : how many they were
    """

    mean: float
    deviation: float
    scans: int

    def surprise(self, value: float) -> float:
        """Return the chance (0 to 1) that a good scan's number is as far off as this one."""
        if not math.isfinite(value):
            return 0.0
        if self.scans < 2:
            return 1.0  # one scan says nothing of how much they vary
        scale = self.deviation * math.sqrt(1 + 1 / self.scans)
        if scale == 0:
            return float(value == self.mean)
        return float(2 * stdtr(self.scans - 1, -abs(value - self.mean) / scale))

    def widened(self, values: Sequence[float], chance: float) -> UsualRange:
        """Return the range, so wide that none of these values is less likely than a chance.

        Numbers of good scans can have heavier tails than a normal distribution's.
        """
        if self.scans < 2 or len(values) == 0:
            return self
        farthest = max(abs(value - self.mean) for value in values)
        reach = -float(stdtrit(self.scans - 1, chance / 2)) * math.sqrt(1 + 1 / self.scans)
        return UsualRange(self.mean, max(self.deviation, farthest / reach), self.scans)


def usual_range(values: Sequence[float], least_deviation: float = 0.0) -> UsualRange:
    """Learn what a number is like in good scans; those that are not finite are left out.

    Parameters
    ----------
    least_deviation : what it varies by at least, whatever these scans say
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return UsualRange(0.0, 0.0, 0)
    deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return UsualRange(float(known.mean()), max(deviation, least_deviation), len(known))
