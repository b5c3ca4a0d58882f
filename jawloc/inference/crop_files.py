"""Crops as TIFF, NRRD, NIfTI or DICOM files, which keep their place in the scan.

All but TIFF hold spacing and origin, so that a point has the same coordinates in mm in crop and
scan; where the spacing is unknown, NRRD and NIfTI, which can't say that, count in voxels. TIFF and
DICOM also hold the window as metadata.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, placement_to_xyz, voxels_to_lps_mm
from jawloc.inference.crop import CropBox
from jawloc.scans.atomic import atomic_path, free_bytes
from jawloc.scans.dicom.writing import write_plain_dicom
from jawloc.scans.manifest import record_file
from jawloc.scans.quantisation import choose_quantisation
from jawloc.scans.scan import ScanFile, scan_in_memory

CROP_ENDINGS = {"tif": ".tif", "nrrd": ".nrrd", "nii.gz": ".nii.gz", "dicom": ".dcm"}


def write_crop(path: Path, crop: np.ndarray, window: CropBox, scan: ScanFile) -> None:
    """Write the crop of a window, atomically, in the format of the path's ending (CROP_ENDINGS).

    Grey values are kept, but DICOM has integers of 8 or 16 bits only: there all others are scaled,
    and the file holds slope and intercept. Raises an InputError if the format can't hold such
    voxels, and an OSError if the file can't be written.
    """
    grid = Grid(window.size_zyx, scan.grid.spacing_mm_zyx)
    place = _placement(scan, window)
    note = {
        "crop_of": scan.path.name,
        "crop_start_zyx": list(window.start_zyx),
        "spacing_mm_zyx": scan.grid.spacing_mm_zyx,
    }
    record_file(path)
    if path.name.endswith(CROP_ENDINGS["dicom"]):
        quantisation = choose_quantisation(scan_in_memory(path, crop, grid))
        stored = quantisation.stored(crop)
        write_plain_dicom(path, stored, grid, place, metadata=note, rescale=quantisation.rescale)
        return
    with _atomically(path, crop.nbytes) as temporary:
        if path.name.endswith(CROP_ENDINGS["tif"]):
            _write_tiff(temporary, crop, note)
        else:
            _write_volume(temporary, crop, grid, place)


def _placement(scan: ScanFile, window: CropBox) -> Placement:
    """Return where the crop's first voxel lies, in voxels where there are no mm."""
    start = np.asarray(window.start_zyx, float)
    whole = scan.read_placement() or Placement()
    first = voxels_to_lps_mm(start, scan.grid, whole)
    z, y, x = (float(v) for v in (start if first is None else first))
    return Placement((z, y, x), whole.axes_zyx)


def _write_tiff(path: Path, crop: np.ndarray, note: dict[str, Any]) -> None:
    import tifffile

    if crop.dtype.kind == "b":  # which TIFF packs to one bit
        crop = crop.view(np.uint8)
    tifffile.imwrite(path, crop, photometric="minisblack", metadata={"axes": "ZYX", **note})


def _write_volume(path: Path, crop: np.ndarray, grid: Grid, place: Placement) -> None:
    import SimpleITK

    dtype = np.dtype(crop.dtype)
    if dtype.kind == "b" or dtype == np.float16:  # not in SimpleITK
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


@contextmanager
def _atomically(path: Path, size_bytes: int) -> Iterator[Path]:
    """Yield an `atomic_path`, and check that the whole crop was written to it."""
    with atomic_path(path, size_bytes) as temporary:
        try:
            yield temporary
            if temporary.stat().st_size < size_bytes and not path.name.endswith(".gz"):
                raise OSError(errno.EIO, "the crop is not written to its end")
        except (OSError, InputError) as error:
            # each library has its own error for a full disk
            if free_bytes(path.parent) < size_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
