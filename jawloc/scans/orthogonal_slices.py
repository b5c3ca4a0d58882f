"""Three orthogonal slices of a volume: all that a picture needs of a scan of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Shape
from jawloc.scans.scan import ScanFile, Slices


@dataclass(frozen=True)
class OrthogonalSlices:
    """Three orthogonal slices through one voxel of a volume."""

    axial: np.ndarray  # (y, x)
    coronal: np.ndarray  # (z, x)
    sagittal: np.ndarray  # (z, y)
    index_zyx: Shape  # the voxel where the slices meet

    @property
    def shape_zyx(self) -> Shape:
        """Return the shape of the whole volume."""
        return (self.coronal.shape[0], *self.axial.shape)


def nearest_voxel(point: Sequence[float] | np.ndarray, shape_zyx: Sequence[int]) -> Shape:
    """Return the index of the voxel that holds `point`, or of the nearest one inside the volume.

    Raise ValueError if the point is not three finite numbers.
    """
    point = np.asarray(point, float)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise ValueError(f"a point is three finite numbers (z, y, x); received {point}")
    z, y, x = np.clip(np.rint(point), 0, np.asarray(shape_zyx) - 1).astype(int)
    return int(z), int(y), int(x)


def orthogonal_slices(volume: np.ndarray, point: Sequence[float] | np.ndarray) -> OrthogonalSlices:
    """Return the slices through a point of a volume (z, y, x) in memory (or memory-mapped)."""
    z, y, x = index = nearest_voxel(point, volume.shape)
    axial, coronal, sagittal = volume[z], volume[:, y], volume[:, :, x]
    return OrthogonalSlices(np.asarray(axial), np.asarray(coronal), np.asarray(sagittal), index)


def silhouettes(mask: np.ndarray) -> OrthogonalSlices:
    """Project a mask (z, y, x) along each axis: its whole outline, not the part in one slice."""
    z, y, x = mask.shape
    return OrthogonalSlices(
        mask.max(axis=0), mask.max(axis=1), mask.max(axis=2), (z // 2, y // 2, x // 2)
    )


def read_orthogonal_slices(
    scan: ScanFile, point: Sequence[float] | np.ndarray
) -> tuple[OrthogonalSlices, OrthogonalSlices | None]:
    """Return the slices through `point` of a scan file's image and mask (None without a mask)."""
    index = nearest_voxel(point, scan.grid.shape_zyx)
    image = _read(scan, scan.read_grey_values, scan.grey_dtype, index)
    if scan.read_mask is None:
        return image, None
    return image, _read(scan, scan.read_mask, np.dtype(np.uint8), index)


def _read(scan: ScanFile, read: Slices, dtype: np.dtype, index: Shape) -> OrthogonalSlices:
    """Read a volume once, slab by slab, and keep only three of its slices."""
    (slices, rows, columns), (z, y, x) = scan.grid.shape_zyx, index
    axial = np.empty((rows, columns), dtype)
    coronal, sagittal = np.empty((slices, columns), dtype), np.empty((slices, rows), dtype)
    for start, stop in scan.slab_ranges():
        slab = read(start, stop)
        coronal[start:stop] = slab[:, y]
        sagittal[start:stop] = slab[:, :, x]
        if start <= z < stop:
            axial[:] = slab[z - start]
    return OrthogonalSlices(axial, coronal, sagittal, index)
