"""Grey values of any type as the 8- or 16-bit integers of a labelled DICOM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.valuerep import DSfloat

from jawloc.errors import InputError
from jawloc.scans.dicom.writing import exact_dtype
from jawloc.scans.padding import sample_values
from jawloc.scans.scan import ScanFile

_LARGEST_STORED = 65535
_REACH = 8  # times the range of sampled grey values: what lies further outside is clipped


@dataclass(frozen=True)
class Quantisation:
    """How an image's values become 8- or 16-bit integers."""

    dtype: np.dtype  # of the integers
    rescale: tuple[float, float] = (1.0, 0.0)  # slope and intercept, from integers to grey values
    # Whether the values that `ScanFile.read_image` returns are mapped to other integers. If not,
    # they are such integers already, and slope and intercept are the scan's own.
    mapped: bool = False
    largest: int = _LARGEST_STORED  # that a mapped value becomes
    clipped_voxels: int = 0  # of the image, that lie outside the range and get its nearest end

    def stored(self, slab: np.ndarray) -> np.ndarray:
        """Return a slab, as `read_image` returns it, as integers of the type `dtype`."""
        if not self.mapped:
            return slab.astype(self.dtype, copy=False)
        slope, intercept = self.rescale
        scaled = np.rint((slab.astype(np.float64) - intercept) / slope)
        return scaled.clip(0, self.largest).astype(self.dtype)


def choose_quantisation(image: ScanFile) -> Quantisation:
    """Choose how an image is stored: exactly where 8 or 16 bits can, else mapped to 0 ... 65535.

    What is stored in 8 or 16 bits already stays as it is, with the rescale that it has. Raise
    InputError if a value is NaN or infinite.

    The 16-bit range is that of all grey values, without those that lie further outside the sampled
    ones than 8 times the sampled range: a few hot voxels, which are clipped.
    """
    exact = exact_dtype(image.dtype, 0, 0, whole=False)
    if exact is not None:
        return Quantisation(exact, (image.rescale_slope, image.rescale_intercept))
    low, high, whole = _range(image)
    exact = exact_dtype(image.dtype, low, high, whole=whole)
    if exact is not None:
        return Quantisation(exact)
    reach = _reach(image)
    if low < reach[0] or high > reach[1]:
        low, high, clipped = _limits_within(image, reach)
    else:
        clipped = 0
    largest = _LARGEST_STORED
    if whole and high - low < _LARGEST_STORED:  # without the clipped ones they fit as they are
        largest = int(high - low)
    # Through DICOM's decimal text, so that the file's slope and intercept are the ones used.
    slope, intercept = (
        float(str(DSfloat(value, auto_format=True)))
        for value in ((high - low) / max(largest, 1) or 1.0, low)
    )
    return Quantisation(np.dtype(np.uint16), (slope, intercept), True, largest, clipped)


def _range(image: ScanFile) -> tuple[float, float, bool]:
    """Return the lowest and highest value, and whether all are whole numbers."""
    low, high, whole = np.inf, -np.inf, True
    for start, stop in image.slab_ranges():
        slab = image.read_image(start, stop)
        lowest, highest = float(slab.min()), float(slab.max())
        # Each slab by itself: min and max of two numbers may drop a NaN, those of an array don't.
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            raise InputError(
                f"{image.path.name}: grey values must be finite; slices {start} to {stop - 1} "
                f"have {lowest} to {highest}"
            )
        low, high = min(low, lowest), max(high, highest)
        whole = whole and (slab.dtype.kind != "f" or bool(np.all(slab == np.rint(slab))))
    return low, high, whole


def _reach(image: ScanFile) -> tuple[float, float]:
    """Return between which values all are stored: sampled ones, and 8 times their range around.

    The sampled range leaves out one value in 50,000 on either side, at least one.
    """
    sample = np.sort(sample_values(image).astype(np.float64))
    rare = max(1, sample.size // 50_000)
    if sample.size <= 2 * rare or sample[rare] == sample[-1 - rare]:
        return -np.inf, np.inf
    low, high = float(sample[rare]), float(sample[-1 - rare])
    return low - _REACH * (high - low), high + _REACH * (high - low)


def _limits_within(image: ScanFile, reach: tuple[float, float]) -> tuple[float, float, int]:
    """Return the lowest and highest value within reach, and how many voxels lie outside it."""
    low, high, outside = np.inf, -np.inf, 0
    for start, stop in image.slab_ranges():
        slab = image.read_image(start, stop)
        inside = slab[(slab >= reach[0]) & (slab <= reach[1])]
        outside += slab.size - inside.size
        if inside.size:
            low, high = min(low, float(inside.min())), max(high, float(inside.max()))
    return low, high, outside
