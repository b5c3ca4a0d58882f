"""Volumes without a mask: NIfTI, NRRD and MetaImage, one reader each.

Headers and voxels are read here and not by SimpleITK, which makes up a spacing of 1 where a header
has none, returns what a damaged stream still yields, and ignores units.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Grid, Placement
from jawloc.scans.rescale import with_rescale
from jawloc.scans.scan import ScanFile, Slices, scan_id_of, unplaced
from jawloc.scans.volumes.header import VolumeHeader
from jawloc.scans.volumes.metaimage import METAIMAGE_ENDINGS, read_metaimage_header
from jawloc.scans.volumes.nifti import NIFTI_ENDINGS, read_nifti_header
from jawloc.scans.volumes.nrrd import NRRD_ENDINGS, read_nrrd_header
from jawloc.scans.volumes.voxels import voxel_slices

VOLUME_ENDINGS = (*NIFTI_ENDINGS, *NRRD_ENDINGS, *METAIMAGE_ENDINGS)

_DTYPES = tuple(np.dtype(f"{kind}{n}") for kind in "ui" for n in (1, 2, 4, 8))
_DTYPES += tuple(np.dtype(f"f{n}") for n in (4, 8))


def open_volume(path: Path) -> ScanFile:
    """Open a NIfTI, NRRD or MetaImage volume.

    Raise InputError if it is damaged, not 3-D, has fewer than two slices, several values a voxel,
    or a spacing that is not positive and finite.
    """
    header = _read_header(path)
    dtype = header.voxels.dtype.newbyteorder("=")
    if dtype not in _DTYPES:
        raise InputError(f"{path.name}: voxels must be one grey value each; they are {dtype}")
    spacing = header.spacing_mm_zyx
    place = unplaced if spacing is None else partial(_placement, header)
    grid = Grid(header.voxels.shape, spacing)
    read = voxel_slices(header.voxels)
    return _rescaled(ScanFile(scan_id_of(path), path, grid, dtype, read, None, place), header)


def voxel_files(path: Path) -> tuple[Path, ...]:
    """Return the files with a volume's voxels, of which its header may be one; as `open_volume`."""
    return _read_header(path).voxels.files


def _read_header(path: Path) -> VolumeHeader:
    name = path.name.lower()
    with as_input_error(f"{path.name}: the file can't be read", OSError):
        if name.endswith(NIFTI_ENDINGS):
            return read_nifti_header(path)
        return (
            read_nrrd_header(path) if name.endswith(NRRD_ENDINGS) else read_metaimage_header(path)
        )


def _placement(header: VolumeHeader) -> Placement | None:
    if header.doubt:
        warnings.warn(header.doubt, stacklevel=1)  # from here, so that each is shown once
    return header.placement


def _rescaled(scan: ScanFile, header: VolumeHeader) -> ScanFile:
    """Return a scan with its rescale; wide stored values are rescaled while they are read."""
    if header.rescale == (1.0, 0.0) or scan.dtype.itemsize * (scan.dtype.kind != "f") in (1, 2):
        return with_rescale(scan, [header.rescale])
    dtype = np.dtype(np.float64 if scan.dtype == np.float64 else np.float32)
    read = partial(_read_rescaled, scan.read_image, header.rescale, dtype)
    return replace(scan, dtype=dtype, read_image=read)


def _read_rescaled(
    read: Slices, rescale: tuple[float, float], dtype: np.dtype, start: int, stop: int
) -> np.ndarray:
    slope, intercept = rescale
    return (read(start, stop) * np.float64(slope) + intercept).astype(dtype)
