"""Scan: one volume, whatever file or folder it came from (`jawloc.scans.reading` opens them)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jawloc.geometry import Grid, Placement

# (start, stop) -> the slices start ... stop - 1 as an array (stop - start, y, x)
Slices = Callable[[int, int], np.ndarray]


def unplaced() -> Placement | None:
    """Say that a format has no place in patient space."""
    return None


@dataclass(frozen=True)
class Scan:
    """A whole volume in memory.

    Attributes
    ----------
    scan_id : str
        The file's or folder's name without its ending; unique within a data set.
    image : array, shape (z, y, x)
        Grey values, in the file's own type.
    mask : array of uint8, shape (z, y, x), or None
        Label values; 0 is background.
    grid : Grid
        Shape and spacing.
    """

    scan_id: str
    image: np.ndarray
    mask: np.ndarray | None
    grid: Grid


@dataclass(frozen=True)
class ScanFile:
    """An opened scan whose voxels are read slab by slab, so that it is never whole in memory.

    Attributes
    ----------
    scan_id, grid
        As in `Scan`.
    path : Path
        The file or folder.
    dtype : numpy.dtype
        Type of the image's voxels.
    read_image : function (start, stop) -> array, shape (stop - start, y, x)
        Reads the image slices start ... stop - 1.
    read_mask : function (start, stop) -> array of uint8, or None
        Likewise for the mask; None where the file has no mask.
    read_placement : function () -> Placement or None
        Reads where the scan lies in patient space; None where the file doesn't say. A function,
        because a DICOM of two thousand frames takes a quarter of a second to say it.
    """

    scan_id: str
    path: Path
    grid: Grid
    dtype: np.dtype
    read_image: Slices
    read_mask: Slices | None
    read_placement: Callable[[], Placement | None] = unplaced


# The longest first, so that x.nii.gz is x.
SCAN_ENDINGS = (
    ".nii.gz",
    ".dicom",
    ".nrrd",
    ".nhdr",
    ".tiff",
    ".dcm",
    ".nii",
    ".mha",
    ".mhd",
    ".tif",
)


def scan_ending(path: Path) -> str | None:
    """Return the ending (lower case) by which jawloc knows a file's format, or None."""
    name = path.name.lower()
    return next((ending for ending in SCAN_ENDINGS if name.endswith(ending)), None)


def scan_id_of(path: Path) -> str:
    """Return a scan's id: the file's name without its ending, or the folder's whole name."""
    ending = None if path.is_dir() else scan_ending(path)
    return path.name[: -len(ending)] if ending else path.name
