"""Writing labelled DICOMs: image and mask in one conformant file, streamed slab by slab."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement
from jawloc.scans.dicom.attributes import MASK_TAG, PADDED_FRAMES, PIXELS_TAG, header_bytes

_EXACT_DTYPES = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16"))
_LARGEST_ELEMENT = 0xFFFFFFFE
_SLAB_BYTES = 16 * 2**20

Slab = tuple[np.ndarray, np.ndarray]


def write_labelled_dicom(
    path: Path,
    image: np.ndarray,
    mask: np.ndarray,
    grid: Grid,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write an image and its mask, both in memory, as one labelled DICOM file.

    An odd number of voxels means one more frame (see `write_labelled_dicom_slabs`).

    Parameters
    ----------
    path : Path
        The file; it appears whole or not at all.
    image : array, shape (z, y, x)
        8- or 16-bit integers as they are; any other type if all its values are whole numbers
        in the range of uint16 or int16, as those.
    mask : array, shape (z, y, x)
        Label values 0 ... 255.
    grid : Grid
        Shape and spacing; where the spacing is None the file has no spacing.
    metadata : mapping, optional
        Anything JSON can hold; `jawloc.scans.dicom.read_metadata` returns it.

    Raises
    ------
    InputError
        If the image's values would not survive, or the volume is over DICOM's 4 GiB an element.
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
    step = max(1, _SLAB_BYTES // max(1, image[0].nbytes))
    slabs = (
        (image[z : z + step].astype(dtype, copy=False), mask[z : z + step])
        for z in range(0, len(image), step)
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

    Parameters
    ----------
    image : array of uint8, int8, uint16 or int16, shape (z, y, x)
    placement : Placement
        Where it lies; not written where the grid's spacing is None.
    path, grid, metadata, rescale : as in `write_labelled_dicom_slabs`
    """
    if image.dtype.newbyteorder("=") not in _EXACT_DTYPES or image.shape != grid.shape_zyx:
        raise ValueError(f"an image of {grid.shape_zyx} 8- or 16-bit integers, not {image.dtype}")
    dtype = image.dtype.newbyteorder("=")
    before, between = header_bytes(
        grid.shape_zyx, grid.spacing_mm_zyx, dtype, metadata, rescale, placement
    )
    padding = bytes(image.nbytes % 2)
    vr = b"OB" if dtype.itemsize == 1 else b"OW"
    with _appearing_whole(path) as file:
        file.write(before + between + _element_start(PIXELS_TAG, vr, image.nbytes + len(padding)))
        file.write(np.ascontiguousarray(image, dtype.newbyteorder("<")).data)
        file.write(padding)


def exact_dtype(dtype: np.dtype, minimum: float, maximum: float, *, whole: bool) -> np.dtype | None:
    """Return the 8- or 16-bit type that holds such grey values exactly; None if there is none.

    Parameters
    ----------
    dtype : numpy.dtype
        What the values are now; an 8- or 16-bit integer type is returned as it is.
    minimum, maximum : float
        The smallest and largest value.
    whole : bool
        Whether all values are whole numbers.
    """
    native = np.dtype(dtype).newbyteorder("=")
    if native in _EXACT_DTYPES:
        return native
    for candidate in (np.dtype(np.uint16), np.dtype(np.int16)):
        limits = np.iinfo(candidate)
        if whole and limits.min <= minimum and maximum <= limits.max:
            return candidate
    return None


def write_labelled_dicom_slabs(
    path: Path,
    slabs: Iterable[Slab],
    grid: Grid,
    dtype: np.dtype,
    *,
    metadata: Mapping[str, Any] | None = None,
    rescale: tuple[float, float] = (1.0, 0.0),
) -> None:
    """Write a labelled DICOM from slabs of slices, never holding more than one of them.

    Parameters
    ----------
    path : Path
        The file; it appears whole or not at all.
    slabs : iterable of (image slab, mask slab)
        Arrays (n, y, x) that follow each other along z and together fill `grid`.
    grid : Grid
        Shape and spacing of the whole volume.
    dtype : numpy.dtype
        uint8, int8, uint16 or int16: the type of the image slabs.
    metadata : mapping, optional
        As in `write_labelled_dicom`.
    rescale : (slope, intercept)
        What turns stored values into grey values. Readers apply it, as jawloc's does.

    Notes
    -----
    A scan with an odd number of voxels gets one more frame, a copy of the last one with an empty
    mask, because DICOM values have an even length and the lab's reader takes the mask element as
    it is. The metadata then say ``"padded_frames": 1``. jawloc drops that frame on reading; other
    readers see it.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype not in _EXACT_DTYPES:
        raise ValueError(f"labelled DICOMs hold 8- or 16-bit integers, not {dtype}")
    frames, rows, columns = grid.shape_zyx
    padding = frames * rows * columns % 2
    stored = (frames + padding, rows, columns)
    if math.prod(stored) * dtype.itemsize > _LARGEST_ELEMENT:
        raise InputError(f"{path.name}: a DICOM image must be under 4 GiB; this one is {stored}")
    notes = dict(metadata or {}) | ({PADDED_FRAMES: 1} if padding else {})
    before, between = header_bytes(stored, grid.spacing_mm_zyx, dtype, notes, rescale)
    voxels = math.prod(stored)
    with _appearing_whole(path) as file:
        file.write(before + _element_start(MASK_TAG, b"OB", voxels))
        mask_at = file.tell()
        file.seek(voxels, os.SEEK_CUR)
        vr = b"OB" if dtype.itemsize == 1 else b"OW"
        file.write(between + _element_start(PIXELS_TAG, vr, voxels * dtype.itemsize))
        _write_voxels(file, slabs, grid, dtype, padding, (file.tell(), mask_at))


def _write_voxels(
    file: BinaryIO,
    slabs: Iterable[Slab],
    grid: Grid,
    dtype: np.dtype,
    padding: int,
    places: tuple[int, int],
) -> None:
    """Write image and mask slabs in turn, each at its own place in the file."""
    image_at, mask_at = places
    written = 0
    plane = grid.shape_zyx[1] * grid.shape_zyx[2]
    for image, mask in _padded(slabs, grid, padding):
        _refuse_misfit(image, mask, grid, dtype)
        file.seek(image_at + written * plane * dtype.itemsize)
        file.write(np.ascontiguousarray(image, dtype.newbyteorder("<")).data)
        file.seek(mask_at + written * plane)
        file.write(np.ascontiguousarray(mask, np.uint8).data)
        written += len(image)
    if written != grid.shape_zyx[0] + padding:
        raise ValueError(f"the slabs hold {written - padding} slices, not {grid.shape_zyx[0]}")


def _padded(slabs: Iterable[Slab], grid: Grid, padding: int) -> Iterator[Slab]:
    last = None
    for image, mask in slabs:
        yield image, mask
        last = image[-1:] if len(image) else last
    if padding and last is not None:
        yield last, np.zeros((1, *grid.shape_zyx[1:]), np.uint8)


def _refuse_misfit(image: np.ndarray, mask: np.ndarray, grid: Grid, dtype: np.dtype) -> None:
    if image.shape != mask.shape or image.shape[1:] != grid.shape_zyx[1:]:
        raise ValueError(f"slabs {image.shape} and {mask.shape} must fit {grid.shape_zyx}")
    if image.dtype.newbyteorder("=") != dtype:
        raise ValueError(f"an image slab must be {dtype}, not {image.dtype}")
    if mask.dtype not in (np.uint8, np.bool_):
        low, high = mask.min(initial=0), mask.max(initial=0)
        if mask.dtype.kind not in "iu" or low < 0 or high > 255:
            raise ValueError(f"mask values must be integers 0 to 255; got {low} to {high}")


@contextmanager
def _appearing_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file in the same folder that becomes `path` only if all goes well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _element_start(tag: int, vr: bytes, length: int) -> bytes:
    """Tag, type and length of an explicit-VR little-endian element with a 32-bit length."""
    start = tag.to_bytes(4, "big")
    tag_bytes = start[1::-1] + start[:1:-1]
    return tag_bytes + vr + b"\0\0" + length.to_bytes(4, "little")
