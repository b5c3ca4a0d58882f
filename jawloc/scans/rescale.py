"""From stored values to grey values: slope times stored value plus intercept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from jawloc.scans.scan import ScanFile, Slices

Rescale = tuple[float, float]  # slope, intercept


def with_rescale(scan: ScanFile, every: Sequence[Rescale]) -> ScanFile:
    """Return a scan file with the rescale of its slices, one (slope, intercept) each.

    If all are the same, stored values are read as before. Otherwise grey values are read, as
    float32, since the stored values of different slices can't be compared.
    """
    slope, intercept = every[0]
    if all(own == every[0] for own in every):
        return replace(scan, rescale_slope=slope, rescale_intercept=intercept)
    read = partial(_read_rescaled, scan.read_image, tuple(every))
    return replace(scan, dtype=np.dtype(np.float32), read_image=read)


def _read_rescaled(read: Slices, every: Sequence[Rescale], start: int, stop: int) -> np.ndarray:
    slopes, intercepts = np.array(every[start:stop], np.float64).reshape(-1, 2).T
    stored = read(start, stop)
    return (stored * slopes[:, None, None] + intercepts[:, None, None]).astype(np.float32)
