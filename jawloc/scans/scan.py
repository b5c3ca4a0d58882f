"""Scan: one volume, whatever file or folder it came from (`jawloc.scans.reading` opens them)."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from jawloc.geometry import Grid, Placement, Shape, Triple

# (start, stop) -> the slices start ... stop - 1 as an array (stop - start, y, x)
Slices = Callable[[int, int], np.ndarray]

SLAB_BYTES = 2**23  # of voxels read at a time; a thicker slab is no faster
# The longest first, so that the id of x.nii.gz is x.
SCAN_ENDINGS = (
    *(".nii.gz", ".dicom", ".nrrd", ".nhdr", ".tiff"),
    *(".dcm", ".nii", ".mha", ".mhd", ".tif"),
)


def unplaced() -> Placement | None:
    """Return None: the placement of a format that has none."""
    return None


@dataclass(frozen=True)
class Scan:
    """A whole volume in memory."""

    scan_id: str  # the file's or folder's name without its ending; unique within a data set
    image: np.ndarray  # (z, y, x), grey values in the file's type; float32 if it has a rescale
    mask: np.ndarray | None  # (z, y, x), label values as uint8; 0 is background
    grid: Grid


@dataclass(frozen=True)
class ScanPoint:
    """The position of an object that somebody gave as a point instead of a mask."""

    object: int | str  # a label value 1 ... 255, as in a mask, or the object's name
    voxels_zyx: Triple  # of the full-size scan


@dataclass(frozen=True)
class ScanFile:
    """An opened scan whose voxels are read slab by slab, so that it is never whole in memory."""

    scan_id: str
    path: Path  # the file or folder
    grid: Grid
    dtype: np.dtype  # of the image's voxels as they are stored
    # Reads voxels as they are stored, with which counting, hashing and averaging are quickest;
    # `grey_values` applies the rescale.
    read_image: Slices
    read_mask: Slices | None  # reads label values as uint8; None where the file has no mask
    # Reads where the scan lies in patient space; None where the file has no position. A function,
    # because parsing the positions of 2000 DICOM frames takes a quarter of a second.
    read_placement: Callable[[], Placement | None] = unplaced
    rescale_slope: float = 1.0  # a grey value is slope * stored value + intercept
    rescale_intercept: float = 0.0
    # By which ITK, with which 3D Slicer reads volumes, shows a TIFF or pictures, whatever their
    # size is; None for other formats, whose size it reads.
    shown_spacing_mm_zyx: Triple | None = None
    points: tuple[ScanPoint, ...] = ()  # of a scan that has points instead of a mask

    @property
    def is_labelled(self) -> bool:
        """Return whether the file says where objects are: with a mask, or with points."""
        return self.read_mask is not None or bool(self.points)

    @property
    def is_rescaled(self) -> bool:
        """Return whether grey values differ from stored values."""
        return (self.rescale_slope, self.rescale_intercept) != (1.0, 0.0)

    @property
    def grey_dtype(self) -> np.dtype:
        """Return the type of `grey_values`."""
        return np.dtype(np.float32) if self.is_rescaled else self.dtype

    def grey_values(self, stored: np.ndarray) -> np.ndarray:
        """Rescale stored values, or means of them, to float32; without a rescale, return them."""
        if not self.is_rescaled:
            return stored
        # float64 in between: a large intercept would cost single precision its last digits
        values = np.multiply(stored, self.rescale_slope, dtype=np.float64)
        values += self.rescale_intercept
        return values.astype(np.float32)

    def read_grey_values(self, start: int, stop: int) -> np.ndarray:
        """Read the grey values of the slices start ... stop - 1."""
        return self.grey_values(self.read_image(start, stop))

    def slab_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield (first slice, slice after the last) of slabs that cover the scan in order."""
        return slab_ranges(self.grid.shape_zyx, self.dtype.itemsize)


def slab_ranges(shape_zyx: Shape, bytes_per_voxel: int) -> Iterator[tuple[int, int]]:
    """Yield (first slice, slice after the last) of slabs of SLAB_BYTES, at least one slice each."""
    slices, rows, columns = shape_zyx
    thickness = max(1, SLAB_BYTES // max(1, rows * columns * bytes_per_voxel))
    for start in range(0, slices, thickness):
        yield start, min(start + thickness, slices)


def slices_of_whole(read_whole: Callable[[], np.ndarray]) -> Slices:
    """Read a whole volume (z, y, x) on the first call; for formats that can't be read in parts."""
    whole = cache(read_whole)
    return lambda start, stop: whole()[start:stop]


def scan_in_memory(path: Path, image: np.ndarray, grid: Grid) -> ScanFile:
    """Return an image in memory as an opened scan without a mask; errors name `path`."""
    return ScanFile(path.name, path, grid, image.dtype, lambda a, b: image[a:b], None)


def scan_ending(path: Path) -> str | None:
    """Return the ending (lower case) by which jawloc knows a file's format, or None."""
    name = path.name.lower()
    return next((ending for ending in SCAN_ENDINGS if name.endswith(ending)), None)


def scan_id_of(path: Path) -> str:
    """Return a scan's id: the file's name without its ending, or the folder's whole name."""
    ending = None if path.is_dir() else scan_ending(path)
    return path.name[: -len(ending)] if ending else path.name


def as_compared(name: str) -> str:
    """Return a scan's name as it is compared with others.

    Unicode writes an umlaut as one character or as a letter and its dots; a Mac's files have the
    latter, most other programs the former.
    """
    return unicodedata.normalize("NFC", name)
