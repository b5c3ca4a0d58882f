"""Scan: one volume, whatever file or folder it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jawloc.geometry import Grid


@dataclass(frozen=True)
class Scan:
    """A whole volume in memory.

    Attributes
    ----------
    scan_id : str
        The file's or folder's name without its ending; unique within a data set.
    image : array, shape (z, y, x)
        Grey values, in the file's own type.
    mask : array of uint8, shape (z, y, x), or None
        Label values; 0 is background.
    grid : Grid
        Shape and spacing.
    """

    scan_id: str
    image: np.ndarray
    mask: np.ndarray | None
    grid: Grid


@dataclass(frozen=True)
class ScanFile:
    """An opened scan whose voxels are read slab by slab, so that it is never whole in memory.

    Attributes
    ----------
    scan_id, grid
        As in `Scan`.
    path : Path
        The file or folder.
    dtype : numpy.dtype
        Type of the image's voxels.
    read_image : function (start, stop) -> array, shape (stop - start, y, x)
        Reads the image slices start ... stop - 1.
    read_mask : function (start, stop) -> array of uint8, or None
        Likewise for the mask; None where the file has no mask.
    """

    scan_id: str
    path: Path
    grid: Grid
    dtype: np.dtype
    read_image: Callable[[int, int], np.ndarray]
    read_mask: Callable[[int, int], np.ndarray] | None
