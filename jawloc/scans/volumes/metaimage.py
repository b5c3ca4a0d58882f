"""MetaImage, with the voxels in the same file (.mha) or beside it (.mhd)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

METAIMAGE_ENDINGS = (".mha", ".mhd")

_TYPES = {
    "i1": "met_char met_ascii_char",
    "u1": "met_uchar",
    "i2": "met_short",
    "u2": "met_ushort",
    "i4": "met_int met_long",  # a long has 4 bytes on every machine
    "u4": "met_uint met_ulong",
    "i8": "met_long_long",
    "u8": "met_ulong_long",
    "f4": "met_float",
    "f8": "met_double",
}
_DTYPES = {name: kind for kind, names in _TYPES.items() for name in names.split()}
_SPACING = ("elementspacing", "elementsize")
_ORIGIN = ("offset", "position", "origin")
_AXES = ("transformmatrix", "rotation", "orientation")

Fields = Mapping[str, str]  # a header's fields by name, in lower case


def read_metaimage_header(path: Path) -> VolumeHeader:
    """Read the header of a MetaImage file; InputError where it isn't one or can't be right."""
    with open_binary(path) as file:
        lines = header_lines(file)
        fields = _fields(lines, path)
        channels = _whole(fields, "elementnumberofchannels", path, 1)
        if channels != 1:
            raise InputError(
                f"{path.name}: voxels must be one grey value each; they have {channels}"
            )
        sizes = whole_numbers(_needed(fields, "dimsize", path), None, "DimSize", path)
        if whole_numbers(_needed(fields, "ndims", path), 1, "NDims", path) != [len(sizes)]:
            raise InputError(f"{path.name}: DimSize must have NDims numbers; it has {len(sizes)}")
        shape = checked_shape(sizes, path)
        voxels = _voxels(fields, shape, file, lines, path)
    unit = fields.get("distanceunits", "").replace("?", "")
    scale = millimetres([unit], path)
    if scale is None:
        return VolumeHeader(voxels, None, None)
    return VolumeHeader(
        voxels, _spacing(fields, scale[0], path), _placement(fields, scale[0], path)
    )


def _fields(lines: Iterator[str], path: Path) -> Fields:
    """Return the fields up to ElementDataFile, which ends a header."""
    fields: dict[str, str] = {}
    for line in lines:
        name, equals, text = line.partition("=")
        if line.strip() and not equals:
            raise InputError(
                f"{path.name}: a line of a MetaImage header must be a field and its value; "
                f"one is {line[:60]!r}"
            )
        fields[name.strip().lower()] = text.strip()
        if "elementdatafile" in fields:
            return fields
    raise InputError(f"{path.name}: a MetaImage header must end with ElementDataFile; it doesn't")


def _needed(fields: Fields, name: str, path: Path) -> str:
    if name not in fields:
        raise InputError(f"{path.name}: a MetaImage header must have {name}; it has none")
    return fields[name]


def _whole(fields: Fields, name: str, path: Path, default: int) -> int:
    return whole_numbers(fields.get(name, str(default)), 1, name, path)[0]


def _first(fields: Fields, names: tuple[str, ...]) -> str | None:
    return next((fields[name] for name in names if name in fields), None)


def _is_true(fields: Fields, names: tuple[str, ...], default: str) -> bool:
    return (_first(fields, names) or default)[:1].lower() in ("t", "1")


def _voxels(
    fields: Fields, shape: Shape, file: BinaryIO, lines: Iterator[str], path: Path
) -> StoredVoxels:
    kind = choice(_needed(fields, "elementtype", path), _DTYPES, "ElementType", path)
    big = _is_true(fields, ("binarydatabyteordermsb", "elementbyteordermsb"), "False")
    dtype = np.dtype(_DTYPES[kind]).newbyteorder(">" if big else "<")
    compressed = _is_true(fields, ("compresseddata",), "False")
    binary = _is_true(fields, ("binarydata",), "True")
    encoding = "zlib" if compressed else "raw" if binary else "text"
    name = fields["elementdatafile"]
    local = name.upper() == "LOCAL"
    files = (path,) if local else listed_files(name, lines, shape[0], path)
    header_size = _whole(fields, "headersize", path, 0)
    if header_size < -1 or (header_size == -1 and encoding != "raw"):
        raise InputError(
            f"{path.name}: HeaderSize must not be negative, unless it is -1 and the voxels are "
            f"raw; it is {header_size}"
        )
    offset = file.tell() if local else 0
    offset = header_size or offset  # counted from the beginning of the file of voxels
    return StoredVoxels(path, files, shape, dtype, encoding, None if offset == -1 else offset)


def _spacing(fields: Fields, scale: float, path: Path) -> Triple | None:
    text = _first(fields, _SPACING)
    if text is None:
        return None
    given = numbers(text, None, "ElementSpacing", path)[:3]
    z, y, x = checked_spacing(given[::-1], path)
    return z * scale, y * scale, x * scale


def _placement(fields: Fields, scale: float, path: Path) -> Placement | None:
    """Return where the volume lies; None where the header has no field for it."""
    origin, axes = _first(fields, _ORIGIN), _first(fields, _AXES)
    if origin is None and axes is None:
        return None
    ndims = _whole(fields, "ndims", path, 3)  # four, if the fourth is one volume
    offset = numbers(origin, ndims, "Offset", path) if origin else [0.0] * ndims
    matrix = numbers(axes, ndims**2, "TransformMatrix", path) if axes else np.eye(ndims)
    # the matrix has the direction of each index as a row
    columns = np.reshape(matrix, (ndims, ndims))[:3, :3].T
    return orthonormal_placement([value * scale for value in offset[:3]], columns)
