"""NRRD, with the voxels in the same file or beside it, raw, gzip, bzip2, text or hexadecimal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Placement, Shape, Triple
from jawloc.scans.opening import open_binary
from jawloc.scans.spacing import checked_spacing, millimetres
from jawloc.scans.volumes.header import VolumeHeader, checked_shape, orthonormal_placement
from jawloc.scans.volumes.text_header import (
    choice,
    header_lines,
    listed_files,
    numbers,
    whole_numbers,
)
from jawloc.scans.volumes.voxels import StoredVoxels

NRRD_ENDINGS = (".nrrd", ".nhdr")

_ENCODINGS = {
    "raw": "raw",
    **dict.fromkeys(("gzip", "gz"), "gzip"),
    **dict.fromkeys(("bzip2", "bz2"), "bzip2"),
    **dict.fromkeys(("ascii", "text", "txt"), "text"),
    "hex": "hex",
}
_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, "
    "int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
    "V": "block",
}
_DTYPES = {name: kind for kind, names in _TYPES.items() for name in names.split(", ")}
_SPATIAL_KINDS = ("domain", "space", "time", "???", "none")
# Signs that turn a space's (x, y, z) into LPS; those of a scanner or of none are taken as they are.
_TO_LPS = {
    name: signs
    for names, signs in (
        (("right-anterior-superior", "ras"), (-1, -1, 1)),
        (("left-anterior-superior", "las"), (1, -1, 1)),
        (("left-posterior-superior", "lps"), (1, 1, 1)),
        (("scanner-xyz", "3d-right-handed", "3d-left-handed"), (1, 1, 1)),
    )
    for name in names
}
_FIELDS = {
    *("number", "type", "dimension", "sizes", "encoding", "endian", "content", "datafile"),
    *("lineskip", "byteskip", "blocksize", "min", "max", "oldmin", "oldmax", "sampleunits"),
    *("spacings", "thicknesses", "axismins", "axismaxs", "centers", "centerings", "labels"),
    *("units", "kinds", "space", "spacedimension", "spaceunits", "spaceorigin"),
    *("spacedirections", "measurementframe"),
}

Fields = Mapping[str, str]  # a header's fields by name, in lower case and without spaces


def read_nrrd_header(path: Path) -> VolumeHeader:
    """Read the header of a NRRD file; InputError where it isn't one or can't be right.

    Spacing, in whatever unit of length, is that of the space directions, else of the spacings; a
    unit that isn't known makes it unknown, with a warning.
    """
    with open_binary(path) as file:
        lines = header_lines(file)
        if not re.fullmatch(r"NRRD(?:\d{4}|00\.01)", next(lines, "").strip()):
            raise InputError(f"{path.name}: a NRRD file must begin with NRRD and its version")
        fields = _fields(lines, path)
        sizes = whole_numbers(_needed(fields, "sizes", path), None, "sizes", path)
        dimension = whole_numbers(_needed(fields, "dimension", path), 1, "dimension", path)
        if dimension != [len(sizes)]:
            raise InputError(
                f"{path.name}: sizes must be as many as the dimension, {dimension[0]}; "
                f"there are {len(sizes)}"
            )
        _refuse_values(fields, path)
        shape = checked_shape(sizes, path)
        voxels = _voxels(fields, shape, file, lines, path)
    units = _units_mm(fields, path)
    vectors = _vectors(fields, path)
    if units is None:
        return VolumeHeader(voxels, None, None)
    if vectors is None:
        return VolumeHeader(
            voxels, _spacing(fields, units, path), _origin_only(fields, units, path)
        )
    vectors = vectors * np.array(units)[:, None]
    spacing = checked_spacing(np.linalg.norm(vectors, axis=0)[::-1], path)
    return VolumeHeader(voxels, spacing, _placement(fields, vectors, units, path))


def _fields(lines: Iterator[str], path: Path) -> Fields:
    """Return the fields up to the blank line, or to the list of files that ends a header."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line.strip():
            return fields
        if line.startswith("#") or re.match(r"[^:]*:=", line):  # a comment, a key of the user's
            continue
        name, colon, text = line.partition(":")
        if not colon:
            raise InputError(
                f"{path.name}: a line of a NRRD header must be a field and its value; "
                f"one is {line[:60]!r}"
            )
        key = name.lower().replace(" ", "")
        if key not in _FIELDS:
            raise InputError(f"{path.name}: a NRRD header has no field {name!r}; is it misspelt?")
        fields[key] = text.strip()
        if _files_field(fields).split()[:1] == ["LIST"]:
            return fields
    if not _files_field(fields):
        raise InputError(f"{path.name}: the header must end before its voxels; it doesn't")
    return fields


def _files_field(fields: Fields) -> str:
    return fields.get("datafile", "")


def _needed(fields: Fields, name: str, path: Path) -> str:
    if name not in fields:
        raise InputError(f"{path.name}: a NRRD header must have the field {name}; it has none")
    return fields[name]


def _refuse_values(fields: Fields, path: Path) -> None:
    """Raise InputError if a header says that a voxel has several values."""
    kinds = fields.get("kinds", "").split()
    others = [kind for kind in kinds if kind.lower() not in _SPATIAL_KINDS]
    if others:
        raise InputError(
            f"{path.name}: voxels must be one grey value each; an axis is of the kind {others[0]}"
        )


def _voxels(
    fields: Fields, shape: Shape, file: BinaryIO, lines: Iterator[str], path: Path
) -> StoredVoxels:
    kind = choice(_needed(fields, "type", path), _DTYPES, "type", path)
    encoding = _ENCODINGS[choice(_needed(fields, "encoding", path), _ENCODINGS, "encoding", path)]
    dtype = np.dtype(_DTYPES[kind])
    if dtype.itemsize > 1 and encoding != "text":
        endian = choice(_needed(fields, "endian", path), ("little", "big"), "endian", path)
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    detached = _files_field(fields)
    files = listed_files(detached, lines, shape[0], path) if detached else (path,)
    (line_skip,) = whole_numbers(fields.get("lineskip", "0"), 1, "line skip", path)
    (skip,) = whole_numbers(fields.get("byteskip", "0"), 1, "byte skip", path)
    if line_skip < 0 or skip < -1 or (skip == -1 and encoding != "raw"):
        raise InputError(
            f"{path.name}: line skip and byte skip must not be negative, unless byte skip is -1 "
            f"and the encoding raw; they are {line_skip} and {skip}, {encoding}"
        )
    offset = 0 if detached else file.tell()
    if line_skip:
        offset = _offset_after(line_skip, files, offset, path)
    if skip == -1:
        return StoredVoxels(path, files, shape, dtype, encoding, None)
    return StoredVoxels(path, files, shape, dtype, encoding, offset, skip)


def _offset_after(lines: int, files: tuple[Path, ...], offset: int, path: Path) -> int:
    if len(files) > 1 or not files[0].is_file():
        raise InputError(
            f"{path.name}: line skip needs one existing file of voxels; there are {len(files)}"
        )
    with open_binary(files[0]) as file:
        file.seek(offset)
        for _ in range(lines):
            if not file.readline():
                break
        return file.tell()


def _units_mm(fields: Fields, path: Path) -> list[float] | None:
    """Return the millimetres that the units of the three axes have; None if one isn't known.

    With space directions the units are those of the space, otherwise those of the axes, if given.
    """
    names = ["spaceunits"] if "spacedirections" in fields else ["units", "spaceunits"]
    given = [_quoted(fields.get(name, "")) for name in names]
    units = next((words for words in given if any(words)), [""])
    units = units * 3 if len(units) == 1 else units[:3]
    if len(units) != 3:
        raise InputError(f"{path.name}: each axis must have a unit; there are {len(units)}")
    return millimetres(units, path)


def _quoted(text: str) -> list[str]:
    return [word.strip() for word in re.findall(r'"([^"]*)"', text)] or text.split()


def _spacing(fields: Fields, units: Sequence[float], path: Path) -> Triple | None:
    """Return the field `spacings` in mm; None without it, or where NaN says that it's unknown."""
    if "spacings" not in fields:
        return None
    values = numbers(fields["spacings"], None, "spacings", path)[:3]
    if any(math.isnan(value) for value in values):
        return None
    z, y, x = checked_spacing(values[::-1], path)
    return z * units[2], y * units[1], x * units[0]


def _vectors(fields: Fields, path: Path) -> np.ndarray | None:
    """Return the space directions, column i for index i (x, y, z); None without them."""
    words = re.findall(r"\([^)]*\)|[^\s()]+", fields.get("spacedirections", ""))
    if not words or all(word.lower() == "none" for word in words):
        return None
    if len(words) < 3:
        raise InputError(f"{path.name}: space directions must be 3 vectors; there are {len(words)}")
    return np.array([_vector(word, "space directions", path) for word in words[:3]]).T


def _vector(text: str, name: str, path: Path) -> list[float]:
    return numbers(re.sub(r"[(),]", " ", text), 3, name, path)


def _to_lps(fields: Fields, path: Path) -> np.ndarray:
    if "space" not in fields:
        return np.ones(3)
    return np.array(_TO_LPS[choice(fields["space"], _TO_LPS, "space", path)], float)


def _placement(
    fields: Fields, vectors_mm: np.ndarray, units: Sequence[float], path: Path
) -> Placement | None:
    given = fields.get("spaceorigin", "(0,0,0)")
    origin = np.array(_vector(given, "space origin", path)) * units
    signs = _to_lps(fields, path)
    return orthonormal_placement(origin * signs, vectors_mm * signs[:, None])


def _origin_only(fields: Fields, units: Sequence[float], path: Path) -> Placement | None:
    """Return the placement of a header without directions: along the axes of its space."""
    if "spaceorigin" not in fields:
        return None
    return _placement(fields, np.eye(3), units, path)
