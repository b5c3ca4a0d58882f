"""Scan: one volume, whatever file or folder it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid

# (start, stop) -> the slices start ... stop - 1 as an array (stop - start, y, x)
Slices = Callable[[int, int], np.ndarray]


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
    """

    scan_id: str
    path: Path
    grid: Grid
    dtype: np.dtype
    read_image: Slices
    read_mask: Slices | None


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


def open_scan(path: Path) -> ScanFile:
    """Open a scan of any supported kind, reading headers only.

    Parameters
    ----------
    path : Path
        A file: DICOM with several frames (.dcm, .dicom; with a mask or without), TIFF (.tif,
        .tiff), NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd). Or a folder
        of slices: one DICOM series, or 2-D TIFFs.

    Returns
    -------
    ScanFile
        Only labelled DICOMs have a mask.

    Raises
    ------
    InputError
        If there is nothing at `path`, its ending is not supported, or it is damaged, not 3-D,
        of one slice, coloured, or of a spacing that is not positive and finite.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path.name}: a scan must be a file or folder; there is none at {path}")
    if path.is_dir():
        from jawloc.scans.images import open_folder

        return open_folder(path)
    ending = scan_ending(path)
    if ending in (".dcm", ".dicom"):
        from jawloc.scans.dicom import open_dicom

        return open_dicom(path)
    if ending in (".tif", ".tiff"):
        from jawloc.scans.tiff import open_tiff

        return open_tiff(path)
    if ending is None:
        raise InputError(
            f"{path.name}: the file's ending must be one of {', '.join(sorted(SCAN_ENDINGS))}"
        )
    from jawloc.scans.images import open_volume

    return open_volume(path)


def read_scan(path: Path) -> Scan:
    """Read a whole scan of any supported kind into memory; otherwise as `open_scan`."""
    scan = open_scan(path)
    slices = scan.grid.shape_zyx[0]
    mask = None if scan.read_mask is None else scan.read_mask(0, slices)
    return Scan(scan.scan_id, scan.read_image(0, slices), mask, scan.grid)
