"""Downsample a scan file by exact area averaging; find its labels' centroids and hash it as well.

The scan is read once, slab by slab, so a scan of any size costs a few slabs of memory. Slices are
summed along z, each target slice is then averaged along y and x, while a second thread hashes
what the first has read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.scans.averaging import VolumeAverage, one_blas_thread
from jawloc.scans.labels import Label, MaskBuilder, point_labels
from jawloc.scans.scan import ScanFile

# Means of integers keep their fractions where 98 % of them span fewer grey values than this: what
# rounding costs is then below 1/512 of the span, less than a screen's grey level.
ROUNDED_SPAN = 256
_SPAN_SAMPLES = 64  # voxels along each axis, at most about, from which the span is taken


@dataclass(frozen=True)
class Downsampled:
    """A scan on a smaller grid, and what was computed from it at full size."""

    # (z, y, x): mean grey values. Those of integers without a rescale are rounded, and keep their
    # type, where 98 % of them span `ROUNDED_SPAN` or more, as no 8-bit ones do; others are floats.
    image: np.ndarray
    # (z, y, x) of uint8, for pictures: where labelled voxels fill at least half of a voxel, the
    # label that fills most of it. Every label of the source keeps at least one voxel.
    mask: np.ndarray | None
    labels: tuple[Label, ...]  # every label (or point) of the source, at full size
    content_hash: str  # `hash_content` of the source


def downsample(
    scan: ScanFile, shape_zyx: Sequence[int], *, on_slab: Callable[[int], None] | None = None
) -> Downsampled:
    """Average a scan file, and its mask where it has one, onto a grid that spans the same space.

    The scan is read once from the first slice to the last. `on_slab` is called after each slab
    with its number of slices; what it raises stops the work.

    Raises
    ------
    InputError
        If the target is larger than the scan, or if a float image holds NaN or infinity.
    """
    shape = check_target(scan, shape_zyx)
    content = _ContentHash(scan)
    with one_blas_thread(), closing(_hashed_slabs(scan, content)) as slabs:
        image = _ImageBuilder(scan, shape)
        mask = MaskBuilder(scan.grid.shape_zyx, shape)
        for start, image_slab, mask_slab in slabs:
            for index, plane in enumerate(image_slab, start):
                image.add(index, plane)
                if mask_slab is not None:
                    mask.add(index, mask_slab[index - start])
            if on_slab is not None:
                on_slab(len(image_slab))
        small_mask = None if scan.read_mask is None else mask.finished()
        labels = mask.labels() or point_labels(scan.points)
        return Downsampled(image.finished(), small_mask, labels, content.hexdigest())


def downsample_image(scan: ScanFile, shape_zyx: Sequence[int]) -> np.ndarray:
    """Average only the image onto a grid: locating needs neither mask nor hash, half of the time.

    Otherwise as `downsample`.
    """
    shape = check_target(scan, shape_zyx)
    with one_blas_thread():
        image = _ImageBuilder(scan, shape)
        for start, stop in scan.slab_ranges():
            for index, plane in enumerate(scan.read_image(start, stop), start):
                image.add(index, plane)
        return image.finished()


def hash_content(scan: ScanFile) -> str:
    """Return the SHA-256 of a scan file's shape, spacing, voxel type, image, and mask or points.

    The image is hashed as it is stored, with its rescale where it has one; of a mask's slices,
    those without a label count as a byte each. It depends on neither the file's name nor its
    format, so a scan that was moved or rewritten with the same content keeps its hash.
    """
    content = _ContentHash(scan)
    deque(_hashed_slabs(scan, content), maxlen=0)  # each slab is hashed on its way
    return content.hexdigest()


class TargetTooLargeError(InputError):
    """A scan is smaller than the grid onto which it is to be averaged."""


def check_target(scan: ScanFile, shape_zyx: Sequence[int]) -> Shape:
    """Return the target shape; raise TargetTooLargeError if the scan can't be averaged onto it."""
    source = scan.grid.shape_zyx
    if any(target < 1 or target > size for target, size in zip(shape_zyx, source, strict=True)):
        wanted, has = ("x".join(str(n) for n in shape) for shape in (shape_zyx, source))
        raise TargetTooLargeError(
            f"{scan.path.name}: the downsampled size must be no larger than the scan on any axis "
            f"(z, y, x); {wanted} is asked of a scan of {has}"
        )
    z, y, x = (int(n) for n in shape_zyx)
    return z, y, x


class _ImageBuilder:
    """Collects averaged slices into the target image."""

    def __init__(self, scan: ScanFile, shape: Shape) -> None:
        self._scan = scan
        self._is_float = scan.dtype.kind == "f"
        self._average = VolumeAverage(scan.grid.shape_zyx, shape, scan.dtype)
        own = scan.dtype.newbyteorder("=") if self._is_float else self._average.dtype
        self._array = np.empty(shape, own)

    def add(self, index: int, plane: np.ndarray) -> None:
        """Add source slice `index`, as it is stored."""
        if self._is_float and not np.isfinite(plane).all():
            raise InputError(
                f"{self._scan.path.name}: grey values must be finite numbers; "
                f"slice {index} holds NaN or infinity"
            )
        for row, mean in self._average.add(index, plane):
            self._array[row] = mean

    def finished(self) -> np.ndarray:
        """Return the image's grey values, rounded where they are integers of a wide range."""
        image, scan = self._array, self._scan
        if not self._is_float:
            whole = not scan.is_rescaled and _span(image) >= ROUNDED_SPAN
            step = 1.0 if whole else _rounding_step(image)
            np.multiply(np.rint(np.divide(image, step, out=image), out=image), step, out=image)
            if whole:
                return image.astype(scan.dtype.newbyteorder("="))
        if scan.is_rescaled:
            return np.stack([scan.grey_values(plane) for plane in image])
        return image


def _rounding_step(image: np.ndarray) -> float:
    """Return a power of two above every error of the averages, so that a constant stays one."""
    largest = max(float(np.abs(image).max()), 1.0)
    return float(8 * np.finfo(image.dtype).eps * 2.0 ** math.ceil(math.log2(largest)))


def _span(image: np.ndarray) -> float:
    """Return how many grey values 98 % of an image span, estimated from some of its voxels."""
    steps = tuple(slice(None, None, max(1, n // _SPAN_SAMPLES)) for n in image.shape)
    low, high = np.percentile(image[steps], (1, 99))
    return float(high - low)


class _ContentHash:
    """The SHA-256 of `hash_content`, updated slab by slab."""

    def __init__(self, scan: ScanFile) -> None:
        self._dtype = scan.dtype.newbyteorder("<")
        header: list[object] = [scan.grid.shape_zyx, scan.grid.spacing_mm_zyx, self._dtype.str]
        if scan.is_rescaled:
            header += [scan.rescale_slope, scan.rescale_intercept]
        header += [[point.object, *point.voxels_zyx] for point in scan.points]
        self._header = json.dumps(header).encode()
        self._image, self._mask = hashlib.sha256(), hashlib.sha256()

    def update(self, image_slab: np.ndarray, mask_slab: np.ndarray | None) -> None:
        self._image.update(np.ascontiguousarray(image_slab, self._dtype).data)
        for plane in () if mask_slab is None else mask_slab:
            # Nearly all of a mask is empty, and SHA-256 takes longer than all the rest.
            labelled = bool(plane.max())
            self._mask.update(b"\1" if labelled else b"\0")
            if labelled:
                self._mask.update(np.ascontiguousarray(plane).data)

    def hexdigest(self) -> str:
        # Image and mask are hashed apart, so that the hash is the same for slabs of any thickness.
        whole = self._header + self._image.digest() + self._mask.digest()
        return hashlib.sha256(whole).hexdigest()


def _hashed_slabs(scan: ScanFile, content: _ContentHash) -> Generator[tuple[int, Any, Any]]:
    """Yield (first slice, image slab, mask slab or None); another thread hashes them meanwhile.

    (hashlib releases the interpreter lock.)
    """
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as thread:
        pending: Future[None] | None = None
        for start, stop in scan.slab_ranges():
            mask_slab = None if scan.read_mask is None else scan.read_mask(start, stop)
            image_slab = scan.read_image(start, stop)
            if pending is not None:
                pending.result()  # so that no more than two slabs are ever held
            pending = thread.submit(content.update, image_slab, mask_slab)
            yield start, image_slab, mask_slab
        if pending is not None:
            pending.result()
