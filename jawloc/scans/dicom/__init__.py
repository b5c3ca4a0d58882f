"""Labelled DICOM: image and mask, or points, in one file, in the lab's layout and in ours.

Both hold the grey values as a multi-frame image and the mask as raw uint8 bytes, z-major and of
the same shape, in the private element (00BB,B001). The lab's files are implicit VR without
spacing and carry a stray creator string at (00BB,B000). Ours are explicit VR and conformant:
creator at (00BB,00B0), spacing in the functional groups, metadata as JSON in (00BB,B010); see
`jawloc.scans.dicom.writing`. A file may have points in (00BB,B002) instead of the mask; see
`jawloc.scans.dicom.points`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Grid, Shape
from jawloc.scans.dicom import attributes
from jawloc.scans.dicom.folder import DICOM_ENDINGS as DICOM_ENDINGS
from jawloc.scans.dicom.geometry import frame_stack, frames_placement, spacing_mm_zyx
from jawloc.scans.dicom.header import (
    BoundedFile,
    PixelLayout,
    byte_range,
    json_value,
    pixel_layout,
    read_header,
)
from jawloc.scans.dicom.points import read_points
from jawloc.scans.dicom.rescale import rescales
from jawloc.scans.dicom.writing import write_labelled_dicom as write_labelled_dicom
from jawloc.scans.dicom.writing import write_labelled_dicom_slabs as write_labelled_dicom_slabs
from jawloc.scans.messages import tell
from jawloc.scans.raw import read_raw
from jawloc.scans.rescale import with_rescale
from jawloc.scans.scan import ScanFile, Slices


def open_labelled_dicom(path: Path) -> ScanFile:
    """Open a labelled DICOM, a multi-frame file with a mask or points, reading its header only.

    Slabs are read straight from the file, as stored; opened files can be sent to other processes.
    A rescale that differs from frame to frame is applied in reading, and the image is float32.

    Raise InputError if the file is not DICOM, is truncated, has neither points nor a mask or one of
    another shape, has one slice, colour pixels, or an invalid spacing or rescale.
    """
    scan = open_dicom(path)
    if not scan.is_labelled:
        raise InputError(
            f"{path.name}: a labelled DICOM needs a mask in element (00BB,B001), or points in "
            f"(00BB,B002); it has neither"
        )
    return scan


def open_dicom(path: Path, *, is_label: bool = False) -> ScanFile:
    """Open a multi-frame DICOM with or without labels; otherwise as `open_labelled_dicom`.

    Grey values of MONOCHROME1 are inverted, unless they are label values. Frames with positions are
    read in their order, the mask's slices with them.
    """
    path = Path(path)
    header = read_header(path)
    layout = resolve_inversion(pixel_layout(header, path), path, is_label=is_label)
    frames = layout.shape_zyx[0] - _padded_frames(header, path)
    if frames < 2:
        raise InputError(f"{path.name}: a scan needs at least two slices; the file has {frames}")
    stack = frame_stack(header, frames, path)
    grid = Grid((frames, *layout.shape_zyx[1:]), spacing_mm_zyx(header, stack, path))
    read_mask = None
    if attributes.MASK_TAG in header:
        read_mask = partial(_read_mask, path, _mask_offset(header, layout), grid.shape_zyx)
    read, place = partial(read_slices, layout, frames), partial(frames_placement, path)
    points = read_points(header, grid.shape_zyx, path)
    scan = ScanFile(path.stem, path, grid, layout.dtype, read, read_mask, place, points=points)
    scan = with_rescale(scan, rescales(header, frames, path))
    return scan if stack is None else _in_order(scan, stack.order)


def _in_order(scan: ScanFile, order: tuple[int, ...]) -> ScanFile:
    """Return a scan whose slices are the file's frames in this order."""
    if order == tuple(range(len(order))):
        return scan
    return replace(
        scan,
        read_image=partial(_read_in_order, scan.read_image, order),
        read_mask=scan.read_mask and partial(_read_in_order, scan.read_mask, order),
        read_placement=partial(frames_placement, scan.path, order[0], order[-1]),
    )


def _read_in_order(read: Slices, order: tuple[int, ...], start: int, stop: int) -> np.ndarray:
    _refuse_outside(start, stop, len(order))
    # an empty slab first, since there may be no slice to read
    return np.concatenate([read(0, 0), *(read(n, n + 1) for n in order[start:stop])])


def resolve_inversion(layout: PixelLayout, path: Path, *, is_label: bool) -> PixelLayout:
    """Return the layout with which values are read: inverted where black is the largest.

    A warning says so, with the scan's `path`. Label values stay as they are stored.
    """
    if layout.inverted and is_label:
        return replace(layout, inverted=False)
    if layout.inverted:
        tell(f"{path.name}: black is stored as the largest value (MONOCHROME1); it is inverted")
    return layout


def _mask_offset(header: Dataset, layout: PixelLayout) -> int:
    offset, length = byte_range(header, attributes.MASK_TAG) or (0, None)
    voxels = math.prod(layout.shape_zyx)
    # DICOM pads a value of odd length with one byte.
    if length not in (voxels, voxels + voxels % 2):
        raise InputError(
            f"{layout.path.name}: the mask must have the image's shape {layout.shape_zyx}, "
            f"{voxels} bytes; it has {length}"
        )
    return offset


def read_slices(layout: PixelLayout, frames: int, start: int, stop: int) -> np.ndarray:
    """Read the slices start ... stop - 1, as stored, of a file with so many unpadded frames."""
    _refuse_outside(start, stop, frames)
    if layout.offset is None:
        return _inverted(_decode_slices(layout, start, stop), layout)
    shape = (stop - start, *layout.shape_zyx[1:])
    offset = layout.offset + start * math.prod(shape[1:]) * layout.dtype.itemsize
    slab = read_raw(layout.path, offset, shape, layout.dtype.newbyteorder("<"))
    if layout.unused_bits:
        # Shifting up and back clears the unused bits, and carries the sign of signed values.
        slab = (slab << layout.unused_bits) >> layout.unused_bits
    return _inverted(slab, layout)


def _inverted(slab: np.ndarray, layout: PixelLayout) -> np.ndarray:
    """Swap the ends of the range of stored values where the largest is black."""
    if not layout.inverted:
        return slab
    if layout.dtype.kind == "i":
        return ~slab  # -1 - value
    largest = (1 << (8 * layout.dtype.itemsize - layout.unused_bits)) - 1
    return np.subtract(layout.dtype.type(largest), slab)


def _decode_slices(layout: PixelLayout, start: int, stop: int) -> np.ndarray:
    from pydicom.pixels import iter_pixels

    slab = np.empty((stop - start, *layout.shape_zyx[1:]), layout.dtype)
    # each decoder raises its own types for damaged data
    damaged = as_input_error(f"{layout.path.name}: slices {start} to {stop - 1} can't be decoded")
    with damaged, warnings.catch_warnings(), BoundedFile(layout.path) as file:
        # of run lengths that give more values than a slice has, pydicom would cut off the rest
        warnings.filterwarnings("error", message="The decoded RLE segment contains non-conformant")
        frames = iter_pixels(file, indices=range(start, stop), raw=True)
        for number, frame in enumerate(frames):
            slab[number] = frame
    return slab


def _read_mask(path: Path, offset: int, shape: Shape, start: int, stop: int) -> np.ndarray:
    frames, rows, columns = shape
    _refuse_outside(start, stop, frames)
    offset += start * rows * columns
    return read_raw(path, offset, (stop - start, rows, columns), np.dtype(np.uint8))


def _refuse_outside(start: int, stop: int, frames: int) -> None:
    if not 0 <= start <= stop <= frames:
        raise IndexError(f"slices {start} to {stop} are outside 0 to {frames}")


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Return the metadata that jawloc wrote into a labelled DICOM; None where there are none."""
    return _metadata(read_header(Path(path)), Path(path))


def _metadata(header: Dataset, path: Path) -> dict[str, Any] | None:
    if attributes.METADATA_TAG not in header or not attributes.has_creator(header):
        return None
    rule = f"{path.name}: its metadata must be JSON"
    notes = json_value(header, attributes.METADATA_TAG, rule)
    if not isinstance(notes, dict):
        raise InputError(f"{path.name}: its metadata must be a JSON object; got {notes!r}")
    return notes


def _padded_frames(header: Dataset, path: Path) -> int:
    padded = (_metadata(header, path) or {}).get(attributes.PADDED_FRAMES, 0)
    if padded not in (0, 1):
        raise InputError(
            f"{path.name}: {attributes.PADDED_FRAMES} must be 0 or 1; it is {padded!r}"
        )
    return int(padded)
