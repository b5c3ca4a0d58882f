"""Writing labelled DICOMs: image and labels in one conformant file, streamed slab by slab."""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jawloc.errors import InputError, as_size
from jawloc.geometry import Grid, Placement, Shape
from jawloc.scans.atomic import atomic_path
from jawloc.scans.dicom.attributes import (
    CHECKSUM_TAG,
    MASK_TAG,
    PADDED_FRAMES,
    PIXELS_TAG,
    header_bytes,
)
from jawloc.scans.dicom.points import points_text
from jawloc.scans.scan import ScanPoint, slab_ranges

_EXACT_DTYPES = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16"))
_LARGEST_ELEMENT = 0xFFFFFFFE

Slab = tuple[np.ndarray, np.ndarray | None]  # image and mask; None where points are written


def write_labelled_dicom(
    path: Path,
    image: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write an image and its mask, both in memory, as one labelled DICOM file.

    As `write_labelled_dicom_slabs`, but the image may also have any other type if all its values
    are whole numbers in the range of uint16 or int16; InputError if they are not.
    """
    if image.shape != grid.shape_zyx or mask.shape != grid.shape_zyx:
        raise ValueError(
            f"image {image.shape}, mask {mask.shape} and grid {grid.shape_zyx} must agree"
        )
    whole = image.dtype.kind != "f" or bool(np.all(image == np.rint(image)))
    dtype = exact_dtype(image.dtype, image.min(initial=0), image.max(initial=0), whole=whole)
    if dtype is None:
        raise InputError(
            f"{path.name}: grey values must be whole numbers that fit 16 bits; "
            f"they are {image.dtype} from {image.min():g} to {image.max():g}"
        )
    slabs = (
        (image[start:stop].astype(dtype, copy=False), mask[start:stop])
        for start, stop in slab_ranges(grid.shape_zyx, image.itemsize)
    )
    write_labelled_dicom_slabs(path, slabs, grid, dtype, metadata=metadata)


def write_plain_dicom(
    path: Path,
    image: np.ndarray,
    grid: Grid,
    placement: Placement,
    *,
    metadata: Mapping[str, Any],
    rescale: tuple[float, float] = (1.0, 0.0),
) -> None:
    """Write an image in memory, without a mask, as one multi-frame DICOM file.

    The image (z, y, x) is of uint8, int8, uint16 or int16. Without a spacing in the grid the
    placement is not written. Otherwise as `write_labelled_dicom_slabs`.
    """
    dtype = image.dtype.newbyteorder("=")
    if dtype not in _EXACT_DTYPES or image.shape != grid.shape_zyx:
        raise ValueError(f"an image of {grid.shape_zyx} 8- or 16-bit integers, not {image.dtype}")
    refuse_too_large(path, image.shape, dtype)
    padding = bytes(image.nbytes % 2)
    start = _element_start(PIXELS_TAG, dtype, image.nbytes + len(padding))
    with atomic_path(path, image.nbytes) as temporary, temporary.open("xb") as file:
        file.write(b"".join(header_bytes(grid, dtype, metadata, rescale, placement)) + start)
        file.write(np.ascontiguousarray(image, dtype.newbyteorder("<")).data)
        file.write(padding)


def exact_dtype(dtype: np.dtype, minimum: float, maximum: float, *, whole: bool) -> np.dtype | None:
    """Return the 8- or 16-bit integer type that holds values exactly; None if there is none.

    `dtype` is their type, `whole` whether all are whole numbers.
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native in _EXACT_DTYPES:
        return native
    for candidate in (np.dtype(np.uint16), np.dtype(np.int16)):
        limits = np.iinfo(candidate)
        if whole and limits.min <= minimum and maximum <= limits.max:
            return candidate
    return None


def refuse_too_large(path: Path, shape_zyx: Shape, dtype: np.dtype) -> None:
    """Raise InputError if an image of this type is too large for a DICOM file.

    What isn't an 8-bit type counts as 16 bits, as which it would be stored, and an odd number of
    voxels is stored with one more slice.
    """
    z, y, x = shape_zyx
    size = (z + z * y * x % 2) * y * x * min(dtype.itemsize, 2)
    if size > _LARGEST_ELEMENT:
        raise InputError(
            f"{path.name}: a DICOM image must be under 4 GiB (4295.0 MB); {shape_zyx} voxels "
            f"(z, y, x) are {as_size(size)}: crop it or halve its resolution, as well as its mask's"
        )


def write_labelled_dicom_slabs(
    path: Path,
    slabs: Iterable[Slab],
    grid: Grid,
    dtype: np.dtype,
    *,
    metadata: Mapping[str, Any] | None = None,
    rescale: tuple[float, float] = (1.0, 0.0),
    placement: Placement | None = None,
    points: Sequence[ScanPoint] = (),
    checksum: bool = False,
) -> None:
    """Write a labelled DICOM from slabs of slices, never holding more than one of them.

    With an odd number of voxels the file gets one more frame, a copy of the last one with an empty
    mask, since DICOM values have an even length and the lab's reader takes the whole mask element.
    jawloc drops that frame on reading; other readers show it.

    Parameters
    ----------
    slabs : arrays (n, y, x) that follow each other along z and together fill `grid`
    dtype : of the image slabs: uint8, int8, uint16 or int16
    metadata : anything JSON can hold; `jawloc.scans.dicom.read_metadata` returns it
    rescale : (slope, intercept); a grey value is slope * stored value + intercept
    placement : where the grid lies; an unknown place, None, is written as the origin, since other
        readers take the voxel size only from a file whose frames have positions
    points : written in place of a mask, inside the scan and one for each object; the slabs then
        have no mask
    checksum : end the file with a checksum of all its bytes, for `has_own_checksum`
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype not in _EXACT_DTYPES:
        raise ValueError(f"labelled DICOMs hold 8- or 16-bit integers, not {dtype}")
    padding, masked = math.prod(grid.shape_zyx) % 2, not points
    stored = Grid((grid.shape_zyx[0] + padding, *grid.shape_zyx[1:]), grid.spacing_mm_zyx)
    refuse_too_large(path, grid.shape_zyx, dtype)
    notes = dict(metadata or {}) | ({PADDED_FRAMES: 1} if padding else {})
    place = placement or Placement()
    headers = header_bytes(stored, dtype, notes, rescale, place, points_text(points))
    fitting = _fitting(slabs, grid, dtype, masked=masked)
    _write(path, fitting, stored, dtype, headers, masked=masked, checksum=checksum)


def has_own_checksum(path: Path) -> bool:
    """Return whether a file ends with the checksum of all bytes before it."""
    content = path.read_bytes()
    start = _element_start(CHECKSUM_TAG, np.dtype(np.uint8), hashlib.sha256().digest_size)
    before = len(content) - len(start) - hashlib.sha256().digest_size
    digest = hashlib.sha256(memoryview(content)[: max(0, before)]).digest()
    return content[max(0, before) :] == start + digest


def _write(
    path: Path,
    slabs: Iterable[Slab],
    grid: Grid,
    dtype: np.dtype,
    headers: tuple[bytes, bytes],
    *,
    masked: bool,
    checksum: bool,
) -> None:
    """Write image and mask slabs in turn, each at its own place in the file."""
    voxels = math.prod(grid.shape_zyx)
    size = voxels * (dtype.itemsize + masked)
    with atomic_path(path, size) as temporary, temporary.open("x+b") as file:
        file.write(headers[0])
        if masked:
            file.write(_element_start(MASK_TAG, np.dtype(np.uint8), voxels))
            mask_at = file.tell()
            file.seek(voxels, os.SEEK_CUR)
        file.write(headers[1] + _element_start(PIXELS_TAG, dtype, voxels * dtype.itemsize))
        image_at = file.tell()
        for image, mask in slabs:
            file.seek(image_at)
            image_at += file.write(np.ascontiguousarray(image, dtype.newbyteorder("<")).data)
            if mask is None:
                continue
            file.seek(mask_at)
            mask_at += file.write(np.ascontiguousarray(mask, np.uint8).data)
        if checksum:
            _append_checksum(file)


def _append_checksum(file: BinaryIO) -> None:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
    file.seek(0, os.SEEK_END)
    file.write(_element_start(CHECKSUM_TAG, np.dtype(np.uint8), len(digest)) + digest)


def _fitting(slabs: Iterable[Slab], grid: Grid, dtype: np.dtype, *, masked: bool) -> Iterator[Slab]:
    """Yield the slabs and the padding; raise ValueError if they don't fit the grid."""
    slices, last = 0, np.zeros((0, *grid.shape_zyx[1:]), dtype)
    for image, mask in slabs:
        if (mask is not None) != masked:
            raise ValueError("a labelled DICOM holds a mask or points, and not both")
        _refuse_misfit(image, mask, grid, dtype)
        yield image, mask
        slices += len(image)
        last = image[-1:] if len(image) else last
    if slices != grid.shape_zyx[0]:
        raise ValueError(f"the slabs hold {slices} slices, not {grid.shape_zyx[0]}")
    if math.prod(grid.shape_zyx) % 2:
        yield last, np.zeros(last.shape, np.uint8) if masked else None


def _refuse_misfit(image: np.ndarray, mask: np.ndarray | None, grid: Grid, dtype: np.dtype) -> None:
    shape = image.shape if mask is None else mask.shape
    if image.shape != shape or image.shape[1:] != grid.shape_zyx[1:]:
        raise ValueError(f"slabs {image.shape} and {shape} must fit {grid.shape_zyx}")
    if image.dtype.newbyteorder("=") != dtype:
        raise ValueError(f"an image slab must be {dtype}, not {image.dtype}")
    if mask is not None and mask.dtype not in (np.uint8, np.bool_):
        low, high = mask.min(initial=0), mask.max(initial=0)
        if mask.dtype.kind not in "iu" or low < 0 or high > 255:
            raise ValueError(f"mask values must be integers 0 to 255; got {low} to {high}")


def _element_start(tag: int, dtype: np.dtype, length: int) -> bytes:
    """Return tag, type and 32-bit length of an explicit-VR little-endian element of voxels."""
    vr = b"OB" if dtype.itemsize == 1 else b"OW"
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, length)
