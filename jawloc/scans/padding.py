"""Voxels without a grey value: NaN, infinity, and padding far outside the real grey values.

Writers fill what lies outside the scanned cylinder with NaN, -3.4e38, -9999 and the like. Averaged
with their neighbours such voxels would spoil the grey values around them, so all formats alike
read them as the lowest real grey value.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from jawloc.errors import InputError
from jawloc.scans.scan import ScanFile

UNREAL = 1e30  # no scanner's grey value has this size; 32-bit padding has 3.4e38
_FAR = 100  # times the range of all other grey values: a repeated extreme so far away is padding
_REPEATED = 1e-3  # share of the sampled voxels that padding has at least
_LOWEST_SHORT = -(2**15)  # of signed 16-bit numbers
_DISTINCT = 16  # fewer grey values than this are labels, of which any may be a number of its own
_SAMPLED_SLICES, _SAMPLED_VOXELS = 16, 128  # of each axis, at most


def sample_values(scan: ScanFile) -> np.ndarray:
    """Return some stored values (n,), at most 16 x 128 x 128, evenly from all of a scan."""
    slices, rows, columns = scan.grid.shape_zyx
    chosen = np.linspace(0, slices - 1, min(slices, _SAMPLED_SLICES)).round().astype(int).tolist()
    step_y, step_x = (-(-n // _SAMPLED_VOXELS) for n in (rows, columns))
    read = scan.read_image
    return np.concatenate([read(i, i + 1)[0, ::step_y, ::step_x].ravel() for i in chosen])


def without_padding(scan: ScanFile, *, is_label: bool = False) -> ScanFile:
    """Return the scan with every voxel that has no grey value read as the lowest grey value.

    Such are NaN, infinity, magnitudes of 1e30 and more, and an extreme value that at least a
    thousandth of sampled voxels have and that lies 100 times the range of all others away from
    them. The scan is searched for its lowest grey value only when the first such voxel is met;
    then a warning says how many there are. With `is_label`, a finite value is never padding: a
    label may be any number.

    Of signed 16-bit images, only the type's lowest value, -32768, may be padding, where it lies
    further from the others than these from each other. Other 8- and 16-bit images are returned as
    they are: they hold no NaN, and their padding is within what their grey values may be.

    Raises
    ------
    InputError
        On reading, if no voxel has a grey value.
    """
    if scan.dtype.itemsize <= 2 and scan.dtype.kind != "f" and (is_label or not _is_short(scan)):
        return scan
    return replace(scan, read_image=_Cleaned(scan, is_label).read)


def _is_short(scan: ScanFile) -> bool:
    return scan.dtype.kind == "i" and scan.dtype.itemsize == 2


@dataclass
class _Cleaned:
    """Reads a scan's stored values without those that are no grey values."""

    scan: ScanFile
    is_label: bool

    def read(self, start: int, stop: int) -> np.ndarray:
        slab = self.scan.read_image(start, stop)
        if _is_short(self.scan) and slab.size and slab.min() > _LOWEST_SHORT:
            return slab  # without a search for its limits
        low, high = self._limits
        if slab.size == 0 or (low <= slab.min() and slab.max() <= high):  # not so with a NaN
            return slab
        slab = slab.copy()
        slab[~self._real(slab)] = self._lowest
        return slab

    def _real(self, slab: np.ndarray) -> np.ndarray:
        low, high = self._limits
        return (slab >= low) & (slab <= high)

    @cached_property
    def _limits(self) -> tuple[float, float]:
        """Return the lowest and highest stored value that may be a grey value."""
        low, high = -np.nextafter(UNREAL, 0), np.nextafter(UNREAL, 0)
        if self.is_label:
            return low, high
        with np.errstate(invalid="ignore"):
            sample = sample_values(self.scan).astype(np.float64)
            values, counts = np.unique(sample[np.abs(sample) < UNREAL], return_counts=True)
        repeated = counts >= max(2, _REPEATED * sample.size)
        if len(values) > _DISTINCT and _is_short(self.scan):
            far = values[1] - values[0] > values[-1] - values[1]
            if values[0] == _LOWEST_SHORT and repeated[0] and far:
                low = _LOWEST_SHORT + 1
        elif len(values) > _DISTINCT:
            if repeated[0] and values[1] - values[0] > _FAR * (values[-1] - values[1]):
                low = values[1] - _FAR * (values[-1] - values[1])
            elif repeated[-1] and values[-1] - values[-2] > _FAR * (values[-2] - values[0]):
                high = values[-2] + _FAR * (values[-2] - values[0])
        return low, high

    @cached_property
    def _lowest(self) -> float:
        """Return the stored value of the lowest grey value; warn of what is read as this value."""
        lowest, missing, total, example = np.inf, 0, 0, np.nan
        sign = -1.0 if self.scan.rescale_slope < 0 else 1.0
        for start, stop in self.scan.slab_ranges():
            slab = self.scan.read_image(start, stop)
            real = self._real(slab)
            total, found = total + slab.size, slab[real]
            missing += slab.size - found.size
            if found.size:
                lowest = min(lowest, float((sign * found.astype(np.float64)).min()))
            if found.size < slab.size:
                example = float(slab[~real][0])
        name = self.scan.path.name
        if missing == total:
            raise InputError(
                f"{name}: a scan needs grey values; all {total} voxels are like {example:g}"
            )
        grey = self.scan.rescale_slope * sign * lowest + self.scan.rescale_intercept
        warnings.warn(
            f"{name}: {missing} of {total} voxels have no grey value ({example:g}); they are read "
            f"as the lowest one, {grey:g}",
            stacklevel=2,
        )
        return sign * lowest
