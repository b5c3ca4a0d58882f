"""Scans without a mask: NIfTI, NRRD and MetaImage through SimpleITK, and folders of slices.

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

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, Triple, placement_from_xyz
from jawloc.scans.dicom.series import dicom_slices, open_dicom_series
from jawloc.scans.dicom.spacing import checked_spacing
from jawloc.scans.scan import ScanFile, Slices, scan_id_of, unplaced
from jawloc.scans.tiff import TIFF_ENDINGS, open_tiff_folder

NIFTI_ENDINGS = (".nii", ".nii.gz")
VOLUME_ENDINGS = (*NIFTI_ENDINGS, ".nrrd", ".nhdr", ".mha", ".mhd")

_DTYPES = {
    f"{8 * size}-bit {name}": np.dtype(f"{kind}{size}")
    for name, kind in (("unsigned integer", "u"), ("signed integer", "i"), ("float", "f"))
    for size in ((4, 8) if kind == "f" else (1, 2, 4, 8))
}


def open_folder(folder: Path) -> ScanFile:
    """Open a folder of slices, all 2-D TIFF or all one DICOM series, as one scan.

    Raises
    ------
    InputError
        If it holds neither or both, or its slices don't make one volume.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    tiffs = [path for path in files if path.suffix.lower() in TIFF_ENDINGS]
    dicoms = dicom_slices(files)
    if tiffs and dicoms:
        raise InputError(
            f"{folder.name}: the slices of a folder must be TIFF or DICOM, not both; "
            f"it has {len(tiffs)} and {len(dicoms)}"
        )
    if not tiffs and not dicoms:
        raise InputError(
            f"{folder.name}: a folder that is one scan must hold 2-D TIFFs or a DICOM series; "
            f"none of its {len(files)} files is either"
        )
    return open_tiff_folder(folder, tiffs) if tiffs else open_dicom_series(folder, dicoms)


def open_volume(path: Path) -> ScanFile:
    """Open a NIfTI, NRRD or MetaImage volume.

    Raises
    ------
    InputError
        If it is damaged, not 3-D, has fewer than two slices, several values a voxel, or a
        spacing that is not positive and finite.
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
    ending = path.name.lower()
    read: Slices
    if ending.endswith(NIFTI_ENDINGS):
        spacing = _nifti_spacing(reader, path)
        read = _nifti_slices(reader, path)
    else:
        text = _header_text(path)
        spacing = _stated_spacing(reader, path, text)
        streams = ending.endswith((".mha", ".mhd")) and not re.search(
            r"^CompressedData\s*=\s*True", text, re.MULTILINE | re.IGNORECASE
        )
        read = partial(_read_region, path, path.name) if streams else _whole_slices(path)
    grid = Grid((size[2], size[1], size[0]), spacing)
    place = unplaced if spacing is None else partial(_placement, path)
    return ScanFile(scan_id_of(path), path, grid, _DTYPES[kind], read, None, place)


def volume_direction(path: Path) -> tuple[float, ...]:
    """Return the nine direction cosines of a NIfTI, NRRD or MetaImage volume (x, y, z)."""
    return tuple(_header_reader(path).GetDirection())


def _placement(path: Path) -> Placement | None:
    """Return where a volume lies; None where a NRRD or MetaImage header has no field for it.

    A NIfTI always says: without a transform its axes are those of the patient, by its standard.
    """
    fields = (
        r"^(?:Offset|Position|Origin|TransformMatrix|Rotation|Orientation)\s*=|"
        r"^space (?:origin|directions)\s*:"
    )
    if not path.name.lower().endswith(NIFTI_ENDINGS) and not re.search(
        fields, _header_text(path), re.MULTILINE | re.IGNORECASE
    ):
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
    import SimpleITK

    reader = _header_reader(path)
    columns, rows, _ = reader.GetSize()
    reader.SetExtractIndex([0, 0, start])
    reader.SetExtractSize([columns, rows, stop - start])
    if stop == start:
        return np.empty((0, rows, columns), _DTYPES[_pixel_name(reader)])
    try:
        return SimpleITK.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(f"{name}: the voxels can't be read; {_reason(error)}") from error


def _whole_slices(path: Path) -> Slices:
    """Read everything on the first call; for formats of which SimpleITK can't read a part."""

    @cache
    def whole() -> np.ndarray:
        import SimpleITK

        try:
            return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        except RuntimeError as error:
            raise InputError(f"{path.name}: the voxels can't be read; {_reason(error)}") from error

    return lambda start, stop: whole()[start:stop]


def _nifti_slices(reader: Any, path: Path) -> Slices:
    # SimpleITK fills what a truncated NIfTI lacks with zeros, so its size is checked here.
    needed = int(float(reader.GetMetaData("vox_offset"))) + (
        math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix")) // 8
    )
    if not _is_gzip(path):
        _refuse_short(path, needed, path.stat().st_size)
        return partial(_read_region, path, path.name)
    unpacked = cache(partial(_unpack, path, needed))
    return lambda start, stop: _read_region(Path(unpacked().name), path.name, start, stop)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:  # the name may lie
        return file.read(2) == b"\x1f\x8b"


def _unpack(path: Path, needed: int) -> Any:
    """Unpack a .nii.gz into a temporary file, which goes when the returned handle does."""
    target = tempfile.NamedTemporaryFile(prefix="jawloc-", suffix=".nii")  # noqa: SIM115
    try:
        with gzip.open(path) as source:
            shutil.copyfileobj(source, target, 2**20)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path.name}: the file can't be unpacked; {error}") from error
    target.flush()
    _refuse_short(path, needed, target.tell())
    return target


def _refuse_short(path: Path, needed: int, size: int) -> None:
    if size < needed:
        raise InputError(
            f"{path.name}: the file is truncated; its voxels end at byte {needed}, "
            f"the file at byte {size}"
        )


def _nifti_spacing(reader: Any, path: Path) -> Triple | None:
    """Spacing in mm; None where the header says 0, which means unknown.

    SimpleITK turns a spacing of NaN or 0 into 1, so those are looked up in the file.
    """
    stated = _nifti_pixdim(path)
    if any(value == 0 for value in stated):
        return None
    if not all(math.isfinite(value) for value in stated):
        return checked_spacing(stated[::-1], path)
    return checked_spacing(reader.GetSpacing()[::-1], path)


def _nifti_pixdim(path: Path) -> tuple[float, ...]:
    """The three pixel dimensions (x, y, z) as the header states them, NIfTI-1 or NIfTI-2."""
    with gzip.open(path) if _is_gzip(path) else path.open("rb") as file:
        header = file.read(540)
    order = "<" if header[:2] in (b"\x5c\x01", b"\x1c\x02") else ">"
    (size,) = struct.unpack_from(f"{order}i", header)
    # sizeof_hdr is 540 for NIfTI-2, whose pixdim are doubles; 348 for NIfTI-1 with floats.
    layout = (f"{order}3d", 104 + 8) if size == 540 else (f"{order}3f", 76 + 4)
    return struct.unpack_from(layout[0], header, layout[1])


def _header_text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(16384).decode("latin-1").replace("\r\n", "\n").split("\n\n")[0]


def _stated_spacing(reader: Any, path: Path, text: str) -> Triple | None:
    """Spacing in mm; None where a NRRD or MetaImage header has no field for it (SimpleITK: 1)."""
    found = re.search(
        r"^(?:ElementSpacing|ElementSize)\s*=|^(?:spacings|space directions)\s*:",
        text,
        re.MULTILINE | re.IGNORECASE,
    )
    if found is None:
        return None
    line = text[found.end() :].split("\n")[0]
    if "nan" in line.lower():
        # Whatever SimpleITK made of it, this is no spacing.
        return checked_spacing([math.nan] * 3, path)
    return checked_spacing(reader.GetSpacing()[::-1], path)


def _reason(error: RuntimeError) -> str:
    """The last line of SimpleITK's message, which says what was wrong and not where in ITK."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sitk::ERROR: ") if lines else type(error).__name__
