"""Reference ranges: which values of a number are usual, learned from a few good scans.

The p-value of a new value comes from the prediction interval of a normal distribution whose mean
and standard deviation were estimated from few scans (Student's t).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t; scipy.stats takes seconds to import


@dataclass(frozen=True)
class ReferenceRange:
    """The range of a number among good scans: normal, with mean and deviation from few scans.

    Attributes
    ----------
    mean, deviation : of the calibration scans
    scans : how many they were
    """

    mean: float
    deviation: float
    scans: int

    def p_value(self, value: float) -> float:
        """Return the probability (0 to 1) that a good scan's value is as far from the mean."""
        if not math.isfinite(value):
            return 0.0
        if self.scans < 2:
            return 1.0  # one scan says nothing of how much they vary
        scale = self.deviation * math.sqrt(1 + 1 / self.scans)
        if scale == 0:
            return float(value == self.mean)
        return float(2 * stdtr(self.scans - 1, -abs(value - self.mean) / scale))

    def widened(self, values: Sequence[float], p_value: float) -> ReferenceRange:
        """Return the range widened until no value has a lower p-value than this.

        Numbers of good scans can have heavier tails than a normal distribution's.
        """
        if self.scans < 2 or len(values) == 0:
            return self
        farthest = max(abs(value - self.mean) for value in values)
        reach = -float(stdtrit(self.scans - 1, p_value / 2)) * math.sqrt(1 + 1 / self.scans)
        return ReferenceRange(self.mean, max(self.deviation, farthest / reach), self.scans)


def reference_range(values: Sequence[float], least_deviation: float = 0.0) -> ReferenceRange:
    """Learn a reference range from the values of good scans, ignoring those that are not finite.

    Parameters
    ----------
    least_deviation : lower bound of the standard deviation
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return ReferenceRange(0.0, 0.0, 0)
    deviation = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return ReferenceRange(float(known.mean()), max(deviation, least_deviation), len(known))
