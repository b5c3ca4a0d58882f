"""The voxels that a volume's header describes: where they are stored, and reading them.

Uncompressed voxels are read from their file slab by slab. All others are first unpacked into a
temporary file, once, and checked to the end: a stream that is damaged is never read in part.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jawloc.errors import InputError, as_input_error
from jawloc.scans.opening import open_binary
from jawloc.scans.raw import read_raw, refuse_truncated
from jawloc.scans.scan import Slices
from jawloc.scans.volumes.encodings import (
    MOST_INFLATION,
    bytes_of_hex,
    inflated,
    unzipped_bzip2,
    values_of_text,
)

# The most bytes that one stored byte becomes; bzip2 has no such limit.
_MOST_BYTES = {"gzip": MOST_INFLATION, "zlib": MOST_INFLATION, "text": 8, "hex": 0.5}
_LARGEST_UNPACKED = 2**29  # bytes of a slice: 16,384 x 16,384 voxels of 16 bits
_DECODERS = {"gzip": inflated, "zlib": inflated, "bzip2": unzipped_bzip2, "hex": bytes_of_hex}


@dataclass(frozen=True)
class StoredVoxels:
    """Where and how a volume's voxels are stored."""

    path: Path  # of the header, which errors name
    files: tuple[Path, ...]  # that follow each other along z, all of the same number of slices
    shape: tuple[int, int, int]  # (z, y, x)
    dtype: np.dtype  # in the file's byte order
    encoding: str = "raw"  # or gzip, zlib, bzip2, text, hex
    offset: int | None = 0  # of the first byte in each file; None: they end where the file does
    skip: int = 0  # decoded bytes before the first voxel

    @property
    def bytes_a_file(self) -> int:
        """Return the number of bytes that the voxels of one file have, decoded."""
        return math.prod(self.shape) * self.dtype.itemsize // len(self.files)

    @property
    def bytes_a_slice(self) -> int:
        """Return the number of bytes that one slice has, decoded."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def voxel_slices(voxels: StoredVoxels) -> Slices:
    """Return the reader of slabs.

    Raise InputError if a file is missing, or is too small or too large for the voxels that the
    header promises. A raw file may have less than a slice more, as a padding.
    """
    if voxels.shape[0] % len(voxels.files):
        raise InputError(
            f"{voxels.path.name}: {voxels.shape[0]} slices must be divided evenly among the files "
            f"of voxels; there are {len(voxels.files)}"
        )
    with as_input_error(f"{voxels.path.name}: a file of voxels can't be opened", OSError):
        for file in dict.fromkeys(voxels.files):
            _refuse_missing(voxels, file)
            _refuse_misfit(voxels, file)
    if voxels.encoding == "raw":
        return partial(_read_files, voxels)
    unpacked = cache(partial(_unpack, voxels))
    return lambda start, stop: _read_unpacked(voxels, unpacked(), start, stop)


def _refuse_missing(voxels: StoredVoxels, file: Path) -> None:
    if not file.is_file():
        raise InputError(
            f"{voxels.path.name}: the header names a file of voxels that must exist; "
            f"there is no {file.name} beside it"
        )


def _refuse_misfit(voxels: StoredVoxels, file: Path) -> None:
    """Raise InputError if a file can't hold the voxels, before any memory is taken for them."""
    size, needed = file.stat().st_size, voxels.bytes_a_file
    if voxels.encoding == "raw":
        start = _start(voxels, file)
        refuse_truncated(file, max(start, 0) + needed, size)
        _refuse_surplus(voxels, file, size - start)
        return
    most = _MOST_BYTES.get(voxels.encoding, math.inf) * size
    if needed + voxels.skip > most:
        raise InputError(
            f"{file.name}: the file is truncated; the header promises {needed} bytes of voxels, "
            f"which {size} bytes can't hold"
        )
    if voxels.bytes_a_slice > _LARGEST_UNPACKED:
        raise InputError(
            f"{voxels.path.name}: a packed slice, which is in memory as a whole, must have at most "
            f"{_LARGEST_UNPACKED} bytes; the header promises {voxels.bytes_a_slice}"
        )


def _start(voxels: StoredVoxels, file: Path) -> int:
    if voxels.offset is None:
        return file.stat().st_size - voxels.bytes_a_file
    return voxels.offset + voxels.skip


def _refuse_surplus(voxels: StoredVoxels, file: Path, found: int) -> None:
    allowed = 0 if voxels.encoding == "zlib" else voxels.bytes_a_slice - 1
    if found > voxels.bytes_a_file + allowed:
        raise InputError(
            f"{file.name}: the voxels must have the {voxels.bytes_a_file} bytes that the header "
            f"promises; there are {found}"
        )


def _read_files(voxels: StoredVoxels, start: int, stop: int) -> np.ndarray:
    """Read slices from raw files, of which each has the same number."""
    if len(voxels.files) == 1:
        (file,) = voxels.files
        return _read(voxels, file, _start(voxels, file), start, stop)
    depth = voxels.shape[0] // len(voxels.files)
    slabs = [np.empty((0, *voxels.shape[1:]), voxels.dtype.newbyteorder("="))]
    for number in range(start // depth, math.ceil(stop / depth)):
        file, first = voxels.files[number], number * depth
        span = max(start - first, 0), min(stop - first, depth)
        slabs.append(_read(voxels, file, _start(voxels, file), *span))
    return np.concatenate(slabs)


def _read(voxels: StoredVoxels, file: Path, offset: int, start: int, stop: int) -> np.ndarray:
    shape = (stop - start, *voxels.shape[1:])
    return read_raw(file, offset + start * voxels.bytes_a_slice, shape, voxels.dtype)


def _read_unpacked(voxels: StoredVoxels, handle: Any, start: int, stop: int) -> np.ndarray:
    shape, place = (stop - start, *voxels.shape[1:]), Path(handle.name)
    return read_raw(place, start * voxels.bytes_a_slice, shape, voxels.dtype, _open_unpacked)


def _open_unpacked(path: Path) -> BufferedReader:
    """Open the temporary file, which may lie anywhere."""
    return path.open("rb")


def _unpack(voxels: StoredVoxels) -> Any:
    """Unpack voxels into a temporary file, which is removed with the returned handle."""
    total = voxels.bytes_a_file * len(voxels.files)
    folder = tempfile.gettempdir()
    with as_input_error(f"{voxels.path.name}: the voxels can't be unpacked", OSError):
        free = shutil.disk_usage(folder).free
        if total > free:
            raise InputError(
                f"{voxels.path.name}: unpacking needs {total / 1e9:.1f} GB in the folder {folder}; "
                f"{free / 1e9:.1f} GB are free (the variable TMPDIR names another folder)"
            )
        target = tempfile.NamedTemporaryFile(prefix="jawloc-", suffix=".raw")  # noqa: SIM115
        for file in voxels.files:
            _unpack_file(voxels, file, target)
        target.flush()
    return target


def _unpack_file(voxels: StoredVoxels, file: Path, target: Any) -> None:
    """Append one file's voxels; InputError if there are fewer or more than the header promises."""
    found, end = 0, voxels.skip + voxels.bytes_a_file
    for block in _decoded(voxels, file):
        first, last = max(voxels.skip - found, 0), max(end - found, 0)
        target.write(memoryview(block)[first:last])
        found += len(block)
    if found < end:
        raise InputError(
            f"{file.name}: the file is truncated; the header promises {end} bytes, unpacked, "
            f"and there are {found}"
        )
    _refuse_surplus(voxels, file, found - voxels.skip)


def _decoded(voxels: StoredVoxels, file: Path) -> Iterator[bytes]:
    try:
        with open_binary(file) as source:
            source.seek(voxels.offset or 0)
            yield from _blocks(voxels, source)
    except (zlib.error, EOFError, ValueError, OSError) as error:
        raise InputError(
            f"{file.name}: the voxels must be valid {voxels.encoding}; {_damage(error)}"
        ) from error


def _damage(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "they break off before their end"
    if isinstance(error, zlib.error) and "check" in str(error):
        return "they don't fit their checksum"
    return "they can't be decoded"


def _blocks(voxels: StoredVoxels, source: BinaryIO) -> Iterator[bytes]:
    if voxels.encoding == "text":
        return values_of_text(source, voxels.dtype)
    return _DECODERS[voxels.encoding](source)
