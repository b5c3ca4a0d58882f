"""Exact area averaging as a separable linear map: the arithmetic of `downsample`.

Along each axis a target voxel is the mean of the source voxels that it covers; a source voxel
that lies across a border counts by the fraction inside. With a voxel's centre at its integer
index this is the resampling that moves points by ``t = (s + 0.5) * n_t / n_s - 0.5``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl  # type: ignore[import-untyped]

from jawloc.geometry import Shape

TARGET_VOXELS_PER_BAND = 8  # along y and x; see _bands


class PlaneAverage:
    """Averages slices (y, x) from a grid of shape `source` onto `target`, both (z, y, x).

    The type of the source's voxels decides between single and double precision.
    """

    def __init__(self, source: Shape, target: Shape, dtype: np.dtype) -> None:
        # Single precision is exact to 0.01 grey values for 16-bit voxels; wider ones need double.
        wide = dtype.itemsize > 2 and dtype != np.float32
        self.dtype = np.dtype(np.float64 if wide else np.float32)
        self._y_bands = _bands(source[1], target[1], self.dtype)
        self._x_bands = _bands(source[2], target[2], self.dtype)
        self._plane = np.empty(source[1:], self.dtype)
        self._rows = np.empty((target[1], source[2]), self.dtype)
        self._shape = target[1:]

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        """Return the averages of a slice (y, x) of the source, in the type `dtype`."""
        np.copyto(self._plane, plane, casting="unsafe")
        for targets, sources, weights in self._y_bands:
            np.matmul(weights, self._plane[sources], out=self._rows[targets])
        average = np.empty(self._shape, self.dtype)
        for targets, sources, weights in self._x_bands:
            average[:, targets] = self._rows[:, sources] @ weights.T
        return average


class VolumeAverage:
    """Averages a volume that is added slice by slice, in order; parameters as in `PlaneAverage`.

    Slices are summed along z first: that is the cheapest of the three sums, and leaves only the
    target's few slices to be averaged along y and x.
    """

    def __init__(self, source: Shape, target: Shape, dtype: np.dtype) -> None:
        self._average = PlaneAverage(source, target, dtype)
        self.dtype = self._average.dtype  # of the averages
        self._sizes = source[0], target[0]
        self._plane, self._part = np.empty((2, *source[1:]), self._average.dtype)
        # No more than two target slices, neighbours, are ever incomplete.
        self._sums = np.empty((2, *source[1:]), self._average.dtype)

    def add(self, index: int, plane: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Add source slice `index`; return the target slices it completes, and their index."""
        np.copyto(self._plane, plane, casting="unsafe")
        completed = []
        for row, share, first, complete in rows_reached(index, *self._sizes):
            total = self._sums[row % 2]
            if first:
                np.multiply(self._plane, share, out=total)
            elif share == 1:
                total += self._plane
            else:
                total += np.multiply(self._plane, share, out=self._part)
            if complete:
                completed.append((row, self._average(total) * (self._sizes[1] / self._sizes[0])))
        return completed


def _bands(
    source_size: int, target_size: int, dtype: np.dtype
) -> list[tuple[slice, slice, np.ndarray]]:
    """Return one axis's averaging matrix as its dense blocks: (targets, sources, weights) each.

    A target voxel covers a handful of source voxels, so nearly all of the whole matrix is zeros;
    blocks of 8 target voxels are small enough to skip those and large enough for the BLAS.
    """
    bands = []
    for first in range(0, target_size, TARGET_VOXELS_PER_BAND):
        last = min(first + TARGET_VOXELS_PER_BAND, target_size)
        low = first * source_size // target_size
        high = -(-last * source_size // target_size)
        # In units of 1/target_size of a source voxel all borders are integers, so the weights
        # are exact up to one rounding.
        targets = np.arange(first, last)[:, None] * source_size
        sources = np.arange(low, high)[None, :] * target_size
        overlap = np.minimum(targets + source_size, sources + target_size)
        overlap = overlap - np.maximum(targets, sources)
        weights = (overlap.clip(0) / source_size).astype(dtype)
        bands.append((slice(first, last), slice(low, high), weights))
    return bands


class RowReached(NamedTuple):
    """A target slice (row of the z axis) that a source slice reaches."""

    row: int
    share: float  # of the source slice that lies in the row
    first: bool  # no earlier source slice reaches the row
    complete: bool  # no later one does


def rows_reached(index: int, source_size: int, target_size: int) -> list[RowReached]:
    """Return the target slices that source slice `index` reaches: one or two of them."""
    start, stop = index * target_size, (index + 1) * target_size
    rows = []
    for row in range(start // source_size, -(-stop // source_size)):
        low, high = row * source_size, (row + 1) * source_size
        share = (min(stop, high) - max(start, low)) / target_size
        rows.append(RowReached(row, share, start <= low, high <= stop))
    return rows


_LOCK = threading.Lock()
_USERS = 0  # threads that work under the process's one limit
_BEFORE: list[tuple[Any, int]] = []  # BLAS libraries and their numbers of threads without it


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep the BLAS to one thread.

    The products here are small and the other cores have hashes or other scans to do; on a busy
    machine BLAS threads that waited for each other made the work up to 100 times slower. The
    limit holds for the whole process: it is set when the first thread enters and lifted when the
    last one leaves, so none lifts it while another is at work, and none restores what was itself
    a limit. Only a BLAS on OpenMP has limits for each thread.
    """
    global _USERS, _BEFORE
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    on_openmp = [one for one in libraries if getattr(one, "threading_layer", "") == "openmp"]
    with _LOCK:
        _USERS += 1
        if _USERS == 1:
            _BEFORE = _limit([one for one in libraries if one not in on_openmp])
    try:
        before = _limit(on_openmp)
        try:
            yield
        finally:
            _restore(before)
    finally:
        with _LOCK:
            _USERS -= 1
            if _USERS == 0:
                _restore(_BEFORE)


def _limit(libraries: Sequence[Any]) -> list[tuple[Any, int]]:
    before = [(library, library.get_num_threads()) for library in libraries]
    _restore([(library, 1) for library in libraries])
    return before


def _restore(numbers: Sequence[tuple[Any, int]]) -> None:
    # From version 3.8 on threadpoolctl obeys only one controlling thread until it is cleared;
    # the thread that lifts the limit may be another than the one that set it.
    controller = getattr(threadpoolctl, "OpenBLASController", None)
    clear = getattr(controller, "clear_controlling_thread", lambda **_: None)
    clear(force=True)
    for library, number in numbers:
        library.set_num_threads(number)
    clear(force=True)
