"""Grey values of any type as the 8- or 16-bit integers of a labelled DICOM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.valuerep import DSfloat

from jawloc.errors import InputError
from jawloc.scans.dicom.writing import exact_dtype
from jawloc.scans.scan import ScanFile

_LARGEST_STORED = 65535


@dataclass(frozen=True)
class Quantisation:
    """How an image's values become 8- or 16-bit integers."""

    dtype: np.dtype  # of the integers
    rescale: tuple[float, float] = (1.0, 0.0)  # slope and intercept, from integers to grey values
    # Whether the values that `ScanFile.read_image` returns are mapped to other integers. If not,
    # they are such integers already, and slope and intercept are the scan's own.
    mapped: bool = False

    def stored(self, slab: np.ndarray) -> np.ndarray:
        """Return a slab, as `read_image` returns it, as integers of the type `dtype`."""
        if not self.mapped:
            return slab.astype(self.dtype, copy=False)
        slope, intercept = self.rescale
        scaled = np.rint((slab.astype(np.float64) - intercept) / slope)
        return scaled.clip(0, _LARGEST_STORED).astype(self.dtype)


def choose_quantisation(image: ScanFile) -> Quantisation:
    """Choose how an image is stored: exactly where 8 or 16 bits can, else mapped to 0 ... 65535.

    What is stored in 8 or 16 bits already stays as it is, with the rescale that it has. Raise
    InputError if a value is NaN or infinite.
    """
    exact = exact_dtype(image.dtype, 0, 0, whole=False)
    if exact is not None:
        return Quantisation(exact, (image.rescale_slope, image.rescale_intercept))
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
    exact = exact_dtype(image.dtype, low, high, whole=whole)
    if exact is not None:
        return Quantisation(exact)
    # Through DICOM's decimal text, so that the file's slope and intercept are the ones used.
    slope, intercept = (
        float(str(DSfloat(value, auto_format=True)))
        for value in ((high - low) / _LARGEST_STORED or 1.0, low)
    )
    return Quantisation(np.dtype(np.uint16), (slope, intercept), mapped=True)
