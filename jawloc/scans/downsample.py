"""Shrink a scan file onto a grid by exact area averaging, with its centroids and hash on the way.

The scan is read once, slab by slab, so a scan of any size costs a few slabs of memory. Slices are
summed along z, each target slice is then averaged along y and x, while a second thread hashes
what the first has read.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.scans.averaging import VolumeAverage, one_blas_thread
from jawloc.scans.labels import Label, MaskBuilder
from jawloc.scans.scan import ScanFile

SLAB_BYTES = 2**23  # of image read at a time; a thicker slab is no faster
# Means of integers keep their fractions where 98 % of them span fewer grey values than this: what
# rounding costs is then below 1/512 of the span, less than a screen's grey level.
ROUNDED_SPAN = 256
_SPAN_SAMPLES = 64  # voxels along each axis, at most about, from which the span is taken


@dataclass(frozen=True)
class Downsampled:
    """A scan on a smaller grid, and what was learnt while reading it at full size.

    Attributes
    ----------
    image : array, shape (z, y, x)
        Mean grey values. Those of integers are rounded to whole ones, and keep their type, where
        that is fine enough: where most of them span `ROUNDED_SPAN` or more, as no 8-bit ones do.
        Otherwise, and with a rescale, they are floats; floats stay floats.
    mask : array of uint8, shape (z, y, x), or None
        For pictures: where labelled voxels fill at least half of a voxel, the label that fills
        most of it. Every label of the source keeps at least one voxel. None without a mask.
    labels : tuple of Label
        Every label value of the source: its number of voxels and its centroid, at full size.
    content_hash : str
        `hash_content` of the source.
    """

    image: np.ndarray
    mask: np.ndarray | None
    labels: tuple[Label, ...]
    content_hash: str


def downsample(
    scan: ScanFile, shape_zyx: Sequence[int], *, on_slab: Callable[[int], None] | None = None
) -> Downsampled:
    """Average a scan file, and its mask where it has one, onto a grid that spans the same space.

    Parameters
    ----------
    scan : ScanFile
        Read once from the first slice to the last.
    shape_zyx : three ints
        Target size, on no axis larger than the scan.
    on_slab : function, optional
        Called after each slab with its number of slices; what it raises stops the work.

    Raises
    ------
    InputError
        If the target is larger than the scan, or if a float image holds NaN or infinity.
    """
    check_target(scan, shape_zyx)
    shape = (int(shape_zyx[0]), int(shape_zyx[1]), int(shape_zyx[2]))
    with one_blas_thread(), _Hasher(scan) as hasher:
        image = _ImageBuilder(scan, shape)
        mask = MaskBuilder(scan.grid.shape_zyx, shape)
        for start, image_slab, mask_slab in _read_slabs(scan):
            hasher.update(image_slab, mask_slab)
            for index, plane in enumerate(image_slab, start):
                image.add(index, plane)
                if mask_slab is not None:
                    mask.add(index, mask_slab[index - start])
            if on_slab is not None:
                on_slab(len(image_slab))
        return Downsampled(
            image.finished(),
            mask.finished() if scan.read_mask is not None else None,
            mask.labels(),
            hasher.hexdigest(),
        )


def downsample_image(scan: ScanFile, shape_zyx: Sequence[int]) -> np.ndarray:
    """Average only the image onto a grid; otherwise as `downsample`.

    To find an object in a new scan takes neither mask nor hash, which cost half of the time.
    """
    check_target(scan, shape_zyx)
    z, y, x = (int(n) for n in shape_zyx)
    with one_blas_thread():
        image = _ImageBuilder(scan, (z, y, x))
        for start, slab, _ in _read_slabs(replace(scan, read_mask=None)):
            for index, plane in enumerate(slab, start):
                image.add(index, plane)
        return image.finished()


def hash_content(scan: ScanFile, *, on_slab: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of what a scan file says: shape, spacing, voxel type, image and mask.

    The image is hashed as it is stored, with its rescale where it has one.

    It depends on neither the file's name nor its format, so a scan that was touched, moved or
    written anew with the same content keeps its hash. Of a mask's slices, those without a label
    count as a byte each.
    """
    with _Hasher(scan) as hasher:
        for _, image_slab, mask_slab in _read_slabs(scan):
            hasher.update(image_slab, mask_slab)
            if on_slab is not None:
                on_slab(len(image_slab))
        return hasher.hexdigest()


def check_target(scan: ScanFile, shape_zyx: Sequence[int]) -> None:
    """Refuse a target grid that a scan cannot be averaged onto.

    Raises
    ------
    InputError
        If the target has an axis that is longer than the scan's, or shorter than one voxel.
    """
    source = scan.grid.shape_zyx
    if any(target < 1 or target > size for target, size in zip(shape_zyx, source, strict=True)):
        wanted, has = ("x".join(str(n) for n in shape) for shape in (shape_zyx, source))
        raise InputError(
            f"{scan.path.name}: the downsampled size must be no larger than the scan on any axis "
            f"(z, y, x); {wanted} is asked of a scan of {has}"
        )


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
        """Return the image's grey values, rounded where they are whole and many."""
        image, scan = self._array, self._scan
        if not self._is_float:
            whole = not scan.is_rescaled and _span(image) >= ROUNDED_SPAN
            step = 1.0 if whole else _sure_step(image)
            np.multiply(np.rint(np.divide(image, step, out=image), out=image), step, out=image)
            if whole:
                return image.astype(scan.dtype.newbyteorder("="))
        if scan.is_rescaled:
            return np.stack([scan.grey_values(plane) for plane in image])
        return image


def _sure_step(image: np.ndarray) -> float:
    """Return a power of two that no error of the averages reaches, so that a constant stays one."""
    largest = max(float(np.abs(image).max()), 1.0)
    return float(8 * np.finfo(image.dtype).eps * 2.0 ** math.ceil(math.log2(largest)))


def _span(image: np.ndarray) -> float:
    """Return how many grey values 98 % of an image span, judged by some of its voxels."""
    steps = tuple(slice(None, None, max(1, n // _SPAN_SAMPLES)) for n in image.shape)
    low, high = np.percentile(image[steps], (1, 99))
    return float(high - low)


class _Hasher:
    """Hashes slabs in its own thread (hashlib lets go of the interpreter lock)."""

    def __init__(self, scan: ScanFile) -> None:
        self._dtype = scan.dtype.newbyteorder("<")
        about: list[object] = [scan.grid.shape_zyx, scan.grid.spacing_mm_zyx, self._dtype.str]
        if scan.is_rescaled:
            about += [scan.rescale_slope, scan.rescale_intercept]
        self._about = json.dumps(about).encode()
        self._image, self._mask = hashlib.sha256(), hashlib.sha256()
        self._pending: Future[None] | None = None

    def __enter__(self) -> _Hasher:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hash")
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def update(self, image_slab: np.ndarray, mask_slab: np.ndarray | None) -> None:
        """Hash two slabs, once the slabs before them are done."""
        self._wait()  # so that no more than two slabs are ever held
        self._pending = self._thread.submit(self._hash, image_slab, mask_slab)

    def _hash(self, image_slab: np.ndarray, mask_slab: np.ndarray | None) -> None:
        self._image.update(np.ascontiguousarray(image_slab, self._dtype).data)
        for plane in () if mask_slab is None else mask_slab:
            # Nearly all of a mask is empty, and SHA-256 takes longer than all the rest.
            labelled = bool(plane.max())
            self._mask.update(b"\1" if labelled else b"\0")
            if labelled:
                self._mask.update(np.ascontiguousarray(plane).data)

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()

    def hexdigest(self) -> str:
        self._wait()
        # Image and mask are hashed apart, so that the thickness of the slabs leaves no trace.
        whole = self._about + self._image.digest() + self._mask.digest()
        return hashlib.sha256(whole).hexdigest()


def _read_slabs(scan: ScanFile) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Yield (first slice, image slab, mask slab) from the first slice to the last."""
    size = scan.grid.shape_zyx[0]
    thickness = max(1, SLAB_BYTES // (math.prod(scan.grid.shape_zyx[1:]) * scan.dtype.itemsize))
    for start in range(0, size, thickness):
        stop = min(start + thickness, size)
        mask = None if scan.read_mask is None else scan.read_mask(start, stop)
        yield start, scan.read_image(start, stop), mask
