"""Volumes without a mask: NIfTI, NRRD and MetaImage through SimpleITK.

Uncompressed NIfTI and MetaImage stream from the file; .nii.gz is unpacked into a temporary file
first. NRRD and compressed MetaImage can only be read whole, and stay in memory while the opened
scan does.
"""

from __future__ import annotations

import gzip
import math
import re
import shutil
import struct
import tempfile
import zlib
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Grid, Placement, Triple, placement_from_xyz
from jawloc.scans.dicom.geometry import checked_spacing
from jawloc.scans.raw import refuse_truncated
from jawloc.scans.scan import ScanFile, Slices, scan_id_of, slices_of_whole, unplaced

NIFTI_ENDINGS = (".nii", ".nii.gz")
VOLUME_ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".nhdr", ".mha", ".mhd")

_DTYPES = {
    f"{8 * size}-bit {name}": np.dtype(f"{kind}{size}")
    for name, kind in (("unsigned integer", "u"), ("signed integer", "i"), ("float", "f"))
    for size in ((4, 8) if kind == "f" else (1, 2, 4, 8))
}
# Fields of NRRD and MetaImage headers
_SPACING_FIELD = r"^(?:ElementSpacing|ElementSize)\s*=|^(?:spacings|space directions)\s*:"
_PLACEMENT_FIELD = (
    r"^(?:Offset|Position|Origin|TransformMatrix|Rotation|Orientation)\s*=|"
    r"^space (?:origin|directions)\s*:"
)
_COMPRESSED = r"^CompressedData\s*=\s*True"


def open_volume(path: Path) -> ScanFile:
    """Open a NIfTI, NRRD or MetaImage volume.

    Raise InputError if it is damaged, not 3-D, has fewer than two slices, several values a voxel,
    or a spacing that is not positive and finite.
    """
    reader = _header_reader(path)
    size = tuple(reader.GetSize())
    if reader.GetDimension() != 3:
        raise InputError(f"{path.name}: a scan must be 3-D (x, y, z); its size is {size}")
    if size[2] < 2:
        raise InputError(f"{path.name}: a scan needs at least two slices; it has {size[2]}")
    kind = _pixel_name(reader)
    if reader.GetNumberOfComponents() != 1 or kind not in _DTYPES:
        raise InputError(f"{path.name}: voxels must be one grey value each; they are {kind}")
    read: Slices
    if _is_nifti(path):
        spacing = _nifti_spacing(reader, path)
        read = _nifti_slices(reader, path)
    else:
        spacing = _spacing(reader, path)
        metaimage = path.name.lower().endswith((".mha", ".mhd"))
        if metaimage and not _search_header(_COMPRESSED, path):
            read = partial(_read_region, path, path.name)
        else:
            read = slices_of_whole(partial(_read_whole, path))
    grid = Grid((size[2], size[1], size[0]), spacing)
    place = unplaced if spacing is None else partial(_placement, path)
    return ScanFile(scan_id_of(path), path, grid, _DTYPES[kind], read, None, place)


def volume_direction(path: Path) -> tuple[float, ...]:
    """Return the nine direction cosines of a NIfTI, NRRD or MetaImage volume (x, y, z)."""
    return tuple(_header_reader(path).GetDirection())


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI_ENDINGS)


def _placement(path: Path) -> Placement | None:
    """Return where a volume lies; None where a NRRD or MetaImage header has no field for it.

    A NIfTI always has a placement: by its standard, without a transform, that of the patient.
    """
    if not _is_nifti(path) and not _search_header(_PLACEMENT_FIELD, path):
        return None
    reader = _header_reader(path)
    return placement_from_xyz(reader.GetOrigin(), reader.GetDirection())


def _header_reader(path: Path) -> Any:
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path.name}: the header can't be read; {_reason(error)}") from error
    return reader


def _pixel_name(reader: Any) -> str:
    import SimpleITK

    return SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())


def _read_region(path: Path, name: str, start: int, stop: int) -> np.ndarray:
    """Read slices start ... stop - 1 only; for formats that SimpleITK streams."""
    reader = _header_reader(path)
    columns, rows, _ = reader.GetSize()
    if stop == start:
        return np.empty((0, rows, columns), _DTYPES[_pixel_name(reader)])
    reader.SetExtractIndex([0, 0, start])
    reader.SetExtractSize([columns, rows, stop - start])
    return _execute(reader, name)


def _read_whole(path: Path) -> np.ndarray:
    return _execute(_header_reader(path), path.name)


def _execute(reader: Any, name: str) -> np.ndarray:
    import SimpleITK

    try:
        return SimpleITK.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(f"{name}: the voxels can't be read; {_reason(error)}") from error


def _nifti_slices(reader: Any, path: Path) -> Slices:
    # SimpleITK fills what a truncated NIfTI lacks with zeros, so its size is checked here.
    end = int(float(reader.GetMetaData("vox_offset"))) + (
        math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix")) // 8
    )
    if not _is_gzip(path):
        refuse_truncated(path, end, path.stat().st_size)
        return partial(_read_region, path, path.name)
    unpacked = cache(partial(_unpack, path, end))
    return lambda start, stop: _read_region(Path(unpacked().name), path.name, start, stop)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:  # the name may be wrong
        return file.read(2) == b"\x1f\x8b"


def _unpack(path: Path, end: int) -> Any:
    """Unpack a .nii.gz into a temporary file, which is removed with the returned handle."""
    target = tempfile.NamedTemporaryFile(prefix="jawloc-", suffix=".nii")  # noqa: SIM115
    damaged = as_input_error(
        f"{path.name}: the file can't be unpacked", OSError, EOFError, zlib.error
    )
    with damaged, gzip.open(path) as source:
        shutil.copyfileobj(source, target, 2**20)
    target.flush()
    refuse_truncated(path, end, target.tell())
    return target


def _nifti_spacing(reader: Any, path: Path) -> Triple | None:
    """Return the spacing in mm; None where the header has 0, which means unknown.

    SimpleITK turns a spacing of NaN or 0 into 1, so those are read from the file.
    """
    pixdim = _nifti_pixdim(path)
    if any(value == 0 for value in pixdim):
        return None
    finite = all(math.isfinite(value) for value in pixdim)
    return checked_spacing((reader.GetSpacing() if finite else pixdim)[::-1], path)


def _nifti_pixdim(path: Path) -> tuple[float, ...]:
    """Return the three pixel dimensions (x, y, z) in the header of a NIfTI-1 or NIfTI-2."""
    with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
        header = file.read(540)
    order = "<" if header[:2] in (b"\x5c\x01", b"\x1c\x02") else ">"
    (size,) = struct.unpack_from(f"{order}i", header)
    # sizeof_hdr is 540 for NIfTI-2, whose pixdim are doubles; 348 for NIfTI-1 with floats.
    layout = (f"{order}3d", 104 + 8) if size == 540 else (f"{order}3f", 76 + 4)
    return struct.unpack_from(layout[0], header, layout[1])


def _search_header(pattern: str, path: Path) -> re.Match[str] | None:
    """Search the text header of a NRRD or MetaImage file."""
    with path.open("rb") as file:
        text = file.read(16384).decode("latin-1").replace("\r\n", "\n").split("\n\n")[0]
    return re.search(pattern, text, re.MULTILINE | re.IGNORECASE)


def _spacing(reader: Any, path: Path) -> Triple | None:
    """Return the spacing in mm; None where the header has no field for it (SimpleITK: 1)."""
    found = _search_header(_SPACING_FIELD, path)
    if found is None:
        return None
    if "nan" in found.string[found.end() :].split("\n")[0].lower():
        # Whatever SimpleITK made of it, this is no spacing.
        return checked_spacing([math.nan] * 3, path)
    return checked_spacing(reader.GetSpacing()[::-1], path)


def _reason(error: RuntimeError) -> str:
    """Return the last line of SimpleITK's message: what was wrong, without the place in ITK."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sitk::ERROR: ") if lines else type(error).__name__
