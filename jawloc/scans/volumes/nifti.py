"""NIfTI-1 and NIfTI-2, packed by gzip or not, whatever the file's name says.

Coordinates follow ITK, and 3D Slicer with it, where the header's two transforms (qform, sform)
disagree; nibabel and nnU-Net take the sform.
"""

from __future__ import annotations

import math
import zlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, Triple, voxels_to_lps_mm
from jawloc.scans.opening import open_binary
from jawloc.scans.spacing import checked_spacing
from jawloc.scans.volumes.encodings import inflated_start, is_gzip
from jawloc.scans.volumes.header import VolumeHeader, checked_shape, orthonormal_placement
from jawloc.scans.volumes.voxels import StoredVoxels

NIFTI_ENDINGS = (".nii", ".nii.gz")

_SIZES = (348, 540)  # of the headers of NIfTI-1 and NIfTI-2, in bytes
_LINE_ENDS = ((13, 10, 26, 10), (0, 0, 0, 0))  # in NIfTI-2, so that damage shows
_MM_BY_UNIT = {1: 1000.0, 3: 0.001}  # metres and microns; all other codes mean mm
_SCALES = (1e-30, 1e30)
_SCANNER = 1  # the code of a transform to the scanner's own coordinates
_SAME_MM = 1e-4  # within which ITK 5.4 takes two transforms for one
_RIGHT_ANGLES = 1e-4  # within which it takes a sform for one without shear
_LARGEST_CONDITION = 1e6  # of a transform that can be inverted, as one of voxels can
_DOUBTFUL_VOXELS = 0.1  # between two transforms, at a corner of the volume


def read_nifti_header(path: Path) -> VolumeHeader:
    """Read the header of a NIfTI file; InputError where it isn't one or can't be right.

    The spacing is that of `pixdim`; where that is 0, the sform's, and without one unknown. The
    scale slope and intercept are the rescale; a slope that is 0 or no number means none.
    """
    packed, header = _read(path)
    sizes = header["dim"][1 : 1 + int(header["dim"][0])]
    shape = checked_shape([int(n) for n in sizes], path)
    voxels = StoredVoxels(
        path,
        (path,),
        shape,
        _dtype(header, path),
        "gzip" if packed else "raw",
        skip=_voxel_offset(header, path),
    )
    scale = _MM_BY_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    qform, sform = _qform(header, scale), _sform(header, scale)
    spacing = _spacing(header, scale, sform, path)
    placement = _placement(qform, sform, int(header["sform_code"]))
    doubt = "" if sform is None else _doubt(sform, placement, Grid(shape, spacing), path)
    return VolumeHeader(voxels, spacing, placement, doubt, _rescale(header, path))


def _read(path: Path) -> tuple[bool, Any]:
    """Return whether a file is packed, and its header as nibabel has it."""
    import nibabel

    with open_binary(path) as file:
        packed = is_gzip(file)
        try:
            start = inflated_start(file, max(_SIZES)) if packed else file.read(max(_SIZES))
        except zlib.error as error:
            raise InputError(
                f"{path.name}: a file that begins as gzip must be gzip; it is damaged"
            ) from error
    order = next((o for o in "<>" if _size_of_header(start, o) in _SIZES), None)
    if order is None:
        raise InputError(
            f"{path.name}: a NIfTI file must begin with the size of its header, 348 or 540; "
            f"it doesn't"
        )
    size = _size_of_header(start, order)
    if len(start) < size:
        raise InputError(
            f"{path.name}: the file is truncated; its header has {size} bytes, "
            f"the file {len(start)}"
        )
    kind = nibabel.Nifti1Header if size == _SIZES[0] else nibabel.Nifti2Header
    header = kind(start[:size], endianness=order, check=False)
    _refuse_misfits(header, path)
    return packed, header


def _refuse_misfits(header: Any, path: Path) -> None:
    magic = bytes(header["magic"].item())
    if magic not in (b"n+1", b"n+2"):
        raise InputError(
            f"{path.name}: a NIfTI file must hold header and voxels (magic n+1 or n+2); "
            f"its magic is {magic.decode('ascii', 'replace')!r}"
        )
    if magic == b"n+2" and tuple(header["eol_check"]) not in _LINE_ENDS:
        raise InputError(
            f"{path.name}: the header must be as it was written; its line ends were changed, as by "
            f"a transfer as text"
        )
    if not 1 <= header["dim"][0] <= 7:
        raise InputError(
            f"{path.name}: a NIfTI file must have 1 to 7 dimensions; it has {header['dim'][0]}"
        )


def _size_of_header(start: bytes, order: str) -> int:
    return int.from_bytes(start[:4], "little" if order == "<" else "big")


def _dtype(header: Any, path: Path) -> np.dtype:
    from nibabel.spatialimages import HeaderDataError

    try:
        return np.dtype(header.get_data_dtype())
    except (HeaderDataError, KeyError) as error:
        raise InputError(
            f"{path.name}: the type of the voxels must be one of NIfTI's; "
            f"its code is {int(header['datatype'])}"
        ) from error


def _voxel_offset(header: Any, path: Path) -> int:
    offset, least = float(header["vox_offset"]), len(header.binaryblock)
    if not least <= offset < 2**62 or offset != int(offset):
        raise InputError(
            f"{path.name}: the voxels must begin after the header's {least} bytes; "
            f"vox_offset is {offset:g}"
        )
    return int(offset)


def _rescale(header: Any, path: Path) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    low, high = _SCALES
    if not (low <= abs(slope) <= high and abs(intercept) <= high):
        raise InputError(
            f"{path.name}: scl_slope must be {low} to {high} in size and scl_inter at most {high}, "
            f"so that grey values fit single precision; they are {slope} and {intercept}"
        )
    return slope, intercept


def _spacing(header: Any, scale: float, sform: np.ndarray | None, path: Path) -> Triple | None:
    pixdim = np.abs(header["pixdim"][1:4].astype(float)) * scale
    if np.all(pixdim != 0):
        return checked_spacing(pixdim[::-1], path)
    if sform is None:
        return None
    return checked_spacing(np.linalg.norm(sform[:, :3], axis=0)[::-1], path)


def _sform(header: Any, scale: float) -> np.ndarray | None:
    """Return the sform (3, 4) in mm and LPS; None where there is none, or it isn't invertible."""
    if header["sform_code"] <= 0:
        return None
    rows = np.array([header[f"srow_{axis}"] for axis in "xyz"], float) * scale
    if not np.all(np.isfinite(rows)) or np.linalg.cond(rows[:, :3]) > _LARGEST_CONDITION:
        return None
    return rows * [[-1], [-1], [1]]


def _qform(header: Any, scale: float) -> np.ndarray | None:
    """Return the qform (3, 4) in mm and LPS, with axes of length 1; None where there is none."""
    from nibabel.quaternions import quat2mat

    if header["qform_code"] <= 0:
        return None
    vector = np.array([header[f"quatern_{part}"] for part in "bcd"], float)
    offset = np.array([header[f"qoffset_{axis}"] for axis in "xyz"], float) * scale
    if not np.all(np.isfinite([*vector, *offset])):
        return None
    # the quaternion has length 1, and its first number is left out
    first = math.sqrt(max(1 - float(vector @ vector), 0.0))
    axes = quat2mat([first, *vector])
    if header["pixdim"][0] < 0:
        axes[:, 2] *= -1
    return np.column_stack([axes, offset]) * [[-1], [-1], [1]]


def _placement(
    qform: np.ndarray | None, sform: np.ndarray | None, sform_code: int
) -> Placement | None:
    """Return where the volume lies: as ITK 5.4 does where that reads a file at all.

    The sform counts if there is no qform, if it leads to the scanner's coordinates, or if both
    agree; but only without shear. Otherwise the qform does. Without both, the place is unknown.
    """
    if qform is None and sform is None:
        return None
    if qform is None:
        return _of(sform)
    if sform is None or not _is_orthogonal(sform):
        return _of(qform)
    return _of(sform if sform_code == _SCANNER or _agree(qform, sform) else qform)


def _of(transform: np.ndarray | None) -> Placement | None:
    if transform is None:
        return None
    return orthonormal_placement(transform[:, 3], transform[:, :3])


def _is_orthogonal(transform: np.ndarray) -> bool:
    unit = transform[:, :3] / np.linalg.norm(transform[:, :3], axis=0)
    return bool(np.abs(unit @ unit.T - np.eye(3)).max() <= _RIGHT_ANGLES)


def _agree(qform: np.ndarray, sform: np.ndarray) -> bool:
    unit = sform / [*np.linalg.norm(sform[:, :3], axis=0), 1]
    return bool(np.abs(unit - qform).max() <= _SAME_MM)


def _doubt(sform: np.ndarray, placement: Placement | None, grid: Grid, path: Path) -> str:
    """Return the warning where other readers, which take the sform, place voxels elsewhere."""
    last = [n - 1 for n in grid.shape_zyx]
    corners = np.array(list(product(*([0, n] for n in last))), float)
    own = voxels_to_lps_mm(corners, grid, placement)
    if own is None or grid.spacing_mm_zyx is None:
        return ""
    others = (corners[:, ::-1] @ sform[:, :3].T + sform[:, 3])[:, ::-1]
    apart = float(np.linalg.norm(own - others, axis=1).max())
    if apart <= _DOUBTFUL_VOXELS * min(grid.spacing_mm_zyx):
        return ""
    return (
        f"{path.name}: qform, sform and pixdim disagree by up to {apart:.3g} mm; coordinates "
        f"follow ITK and 3D Slicer, whereas nibabel and nnU-Net take the sform's"
    )
