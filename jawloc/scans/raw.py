"""Voxels that lie uncompressed in a file."""

from __future__ import annotations

from collections.abc import Callable
from io import BufferedReader
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.scans.opening import open_binary


def read_raw(
    path: Path,
    offset: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    open_file: Callable[[Path], BufferedReader] = open_binary,
) -> np.ndarray:
    """Read values of the file's type `dtype` from a byte on; return them in native byte order."""
    values = np.empty(shape, dtype)
    with open_file(path) as file:
        file.seek(offset)
        count = file.readinto(values.reshape(-1).view(np.uint8).data)
    if count != values.nbytes:
        raise InputError(
            f"{path.name}: the file changed while it was read; "
            f"{count} bytes at {offset} instead of {values.nbytes}"
        )
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def refuse_truncated(path: Path, end: int, size: int) -> None:
    """Raise InputError if the voxels end at a byte beyond the file's size."""
    if size < end:
        raise InputError(
            f"{path.name}: the file is truncated; its voxels end at byte {end}, "
            f"the file at byte {size}"
        )
