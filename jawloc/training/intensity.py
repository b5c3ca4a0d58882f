"""Grey values -> network input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

COUNTED_VOXELS = 2**17  # at a time: counting takes 8 bytes a voxel, best in a core's own cache


@dataclass(frozen=True)
class IntensityConfig:
    """How grey values become network input.

    ``percentile`` maps each scan's `low` percentile to 0 and its `high` one to 1, which removes the
    scanner's gain and offset; ``raw`` keeps the values, as the lab trained.
    """

    rule: Literal["percentile", "raw"] = "percentile"  # `raw` leaves grey values as they are
    low: Annotated[float, Field(ge=0, le=100)] = 1.0  # the percentile of each scan that becomes 0
    high: Annotated[float, Field(ge=0, le=100)] = 99.5  # the percentile of each scan that becomes 1


def normalise(image: np.ndarray, config: IntensityConfig) -> np.ndarray:
    """Convert grey values to network input (float32, same shape) by the intensity rule."""
    if config.rule == "raw":
        return np.array(image, dtype=np.float32)  # a copy: tensors are made of it
    low, high = grey_percentiles(image, (config.low, config.high))
    if high <= low:  # nearly every voxel has one grey value
        low, high = float(image.min()), float(image.max())
    values: np.ndarray = np.subtract(image, np.float32(low), dtype=np.float32)
    values /= np.float32(grey_range(low, high))
    return values


def grey_range(low: float, high: float) -> float:
    """Return the length of a range of grey values; 1 if it is nothing but rounding."""
    rounding = 1e-6 * max(abs(low), abs(high))
    return high - low if high - low > rounding else 1.0


def grey_percentiles(image: np.ndarray, percentages: Sequence[float]) -> list[float]:
    """Return percentiles, interpolated linearly as `numpy.percentile` does.

    8- and 16-bit integers are counted instead of sorted, which is several times faster.
    """
    if image.dtype.kind not in "iu" or image.dtype.itemsize > 2 or image.size == 0:
        # in double precision: numpy interpolates in the image's own type, where integers overflow
        return np.percentile(image.astype(np.float64), list(percentages)).tolist()
    lowest = int(np.iinfo(image.dtype).min)
    flat, counts = image.reshape(-1), np.zeros(2 ** (8 * image.dtype.itemsize), np.int64)
    for first in range(0, flat.size, COUNTED_VOXELS):
        part = flat[first : first + COUNTED_VOXELS].astype(np.intp) - lowest
        counts += np.bincount(part, minlength=len(counts))
    positions = np.asarray(percentages) / 100 * (flat.size - 1)  # in the sorted voxels
    ranks = positions.astype(int)
    ends = np.cumsum(counts)  # voxels of this grey value or a lower one
    below = np.searchsorted(ends, ranks, side="right")
    above = np.searchsorted(ends, np.minimum(ranks + 1, flat.size - 1), side="right")
    return (lowest + below + (above - below) * (positions - ranks)).tolist()
