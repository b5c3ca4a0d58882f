"""Crops as files: TIFF, NRRD, NIfTI or DICOM, which keep where in the scan they were cut out.

Every format but TIFF has a place for spacing and origin: there a point of the crop and the same
point of the scan have the same coordinates in mm. Where the scan's spacing is unknown, NRRD and
NIfTI, which can't say that, count in voxels. TIFF and DICOM also carry the window as a note.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, placement_to_xyz, voxels_to_lps_mm
from jawloc.inference.crop import CropBox
from jawloc.scans.atomic import atomic_path
from jawloc.scans.dicom.writing import write_plain_dicom
from jawloc.scans.manifest import record_file
from jawloc.scans.quantisation import choose_quantisation
from jawloc.scans.scan import ScanFile, scan_in_memory

CROP_ENDINGS = {"tif": ".tif", "nrrd": ".nrrd", "nii.gz": ".nii.gz", "dicom": ".dcm"}


def write_crop(path: Path, crop: np.ndarray, window: CropBox, scan: ScanFile) -> None:
    """Write a crop in the format that the file's ending names; it appears whole or not at all.

    Parameters
    ----------
    path : Path
        With one of the endings in CROP_ENDINGS.
    crop : array, shape (z, y, x)
        As `read_crop` returns it. Its values are kept, except by DICOM, which has integers of 8
        or 16 bits only: there all others are scaled, and the file says how.
    window : CropBox
        Where in the scan the crop lies.

    Raises
    ------
    InputError
        If the format can't hold such voxels.
    OSError
        If the file can't be written.
    """
    grid = Grid(_shape(crop), scan.grid.spacing_mm_zyx)
    place = _placement(scan, window)
    record_file(path)
    if path.name.endswith(CROP_ENDINGS["dicom"]):
        _write_dicom(path, crop, grid, place, _note(window, scan))
        return
    with _appearing_whole(path, crop.nbytes) as temporary:
        if path.name.endswith(CROP_ENDINGS["tif"]):
            _write_tiff(temporary, crop, _note(window, scan))
        else:
            _write_volume(temporary, crop, grid, place)


def _placement(scan: ScanFile, window: CropBox) -> Placement:
    """Return where the crop's first voxel lies, on axes in voxels where there are no mm."""
    start = np.asarray(window.start_zyx, float)
    whole = scan.read_placement() or Placement()
    first = voxels_to_lps_mm(start, scan.grid, whole)
    z, y, x = (float(v) for v in (start if first is None else first))
    return Placement((z, y, x), whole.axes_zyx)


def _note(window: CropBox, scan: ScanFile) -> dict[str, Any]:
    return {
        "crop_of": scan.path.name,
        "crop_start_zyx": list(window.start_zyx),
        "spacing_mm_zyx": scan.grid.spacing_mm_zyx,
    }


def _write_tiff(path: Path, crop: np.ndarray, note: dict[str, Any]) -> None:
    import tifffile

    if crop.dtype.kind == "b":  # which TIFF packs to one bit
        crop = crop.view(np.uint8)
    tifffile.imwrite(path, crop, photometric="minisblack", metadata={"axes": "ZYX", **note})


def _write_volume(path: Path, crop: np.ndarray, grid: Grid, place: Placement) -> None:
    import SimpleITK

    dtype = np.dtype(crop.dtype)
    if dtype.kind == "b" or dtype == np.float16:  # SimpleITK doesn't know these
        dtype = np.dtype(np.uint8 if dtype.kind == "b" else np.float32)
    values = np.ascontiguousarray(crop, dtype.newbyteorder("="))
    image = SimpleITK.GetImageFromArray(values)
    origin, direction = placement_to_xyz(place)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    if grid.spacing_mm_zyx is not None:
        image.SetSpacing(grid.spacing_mm_zyx[::-1])
    try:
        SimpleITK.WriteImage(image, str(path))
        # a full disk is not always noticed by the writer
        whole = np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), values)
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[-1].split())
        raise InputError(f"the crop can't be written in this format; {reason}") from error
    if not whole:
        raise OSError(errno.EIO, "the crop read back is not the crop written")


def _write_dicom(
    path: Path, crop: np.ndarray, grid: Grid, place: Placement, note: dict[str, Any]
) -> None:
    """Write grey values exactly where 16 bits can hold them, else scaled."""
    quantisation = choose_quantisation(scan_in_memory(path, crop, grid))
    stored, rescale = quantisation.stored(crop), quantisation.rescale
    write_plain_dicom(path, stored, grid, place, metadata=note, rescale=rescale)


@contextmanager
def _appearing_whole(path: Path, size_bytes: int) -> Iterator[Path]:
    """Yield an `atomic_path`, and check that all of the crop has been written to it."""
    with atomic_path(path) as temporary:
        try:
            yield temporary
            if temporary.stat().st_size < size_bytes and not path.name.endswith(".gz"):
                raise OSError(errno.EIO, "the crop is not written to its end")
        except (OSError, InputError) as error:
            # each library has its own message for a full disk
            if shutil.disk_usage(path.parent).free < size_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise


def _shape(crop: np.ndarray) -> tuple[int, int, int]:
    z, y, x = crop.shape
    return z, y, x
