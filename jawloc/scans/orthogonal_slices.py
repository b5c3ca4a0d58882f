"""Three orthogonal planes of a volume: all that a picture needs of a scan of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Shape
from jawloc.scans.scan import ScanFile

SLAB_BYTES = 2**25  # read at a time from a scan file


@dataclass(frozen=True)
class OrthogonalSlices:
    """Three orthogonal planes through one voxel of a volume.

    Attributes
    ----------
    axial : array, shape (y, x)
    coronal : array, shape (z, x)
    sagittal : array, shape (z, y)
    index_zyx : tuple of int
        The voxel through which the planes go.
    """

    axial: np.ndarray
    coronal: np.ndarray
    sagittal: np.ndarray
    index_zyx: Shape

    @property
    def shape_zyx(self) -> Shape:
        """Return the shape of the whole volume."""
        return (self.coronal.shape[0], *self.axial.shape)


def nearest_voxel(point: Sequence[float] | np.ndarray, shape_zyx: Sequence[int]) -> Shape:
    """Return the index of the voxel that holds `point`, or of the nearest one inside the volume.

    Raises
    ------
    ValueError
        If the point is not three finite numbers.
    """
    point = np.asarray(point, float)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise ValueError(f"a point is three finite numbers (z, y, x); received {point}")
    z, y, x = np.clip(np.rint(point), 0, np.asarray(shape_zyx) - 1).astype(int)
    return int(z), int(y), int(x)


def orthogonal_slices(volume: np.ndarray, point: Sequence[float] | np.ndarray) -> OrthogonalSlices:
    """Cut three planes out of a volume (z, y, x) that is in memory (or memory-mapped)."""
    z, y, x = index = nearest_voxel(point, volume.shape)
    return OrthogonalSlices(
        axial=np.asarray(volume[z]),
        coronal=np.asarray(volume[:, y]),
        sagittal=np.asarray(volume[:, :, x]),
        index_zyx=index,
    )


def silhouettes(mask: np.ndarray) -> OrthogonalSlices:
    """Project a mask (z, y, x) along each axis: its whole outline, not the part on one plane."""
    z, y, x = mask.shape
    return OrthogonalSlices(
        mask.max(axis=0), mask.max(axis=1), mask.max(axis=2), (z // 2, y // 2, x // 2)
    )


def read_orthogonal_slices(
    scan_file: ScanFile, point: Sequence[float] | np.ndarray
) -> tuple[OrthogonalSlices, OrthogonalSlices | None]:
    """Cut three planes through `point` (z, y, x) out of a scan file, slab by slab.

    Returns
    -------
    The planes of the image, and those of the mask (None where the file has none).
    """
    shape = scan_file.grid.shape_zyx
    index = nearest_voxel(point, shape)
    image = _planes_slab_by_slab(scan_file.read_grey_values, shape, scan_file.grey_dtype, index)
    if scan_file.read_mask is None:
        return image, None
    return image, _planes_slab_by_slab(scan_file.read_mask, shape, np.dtype(np.uint8), index)


def _planes_slab_by_slab(
    read: Callable[[int, int], np.ndarray], shape: Shape, dtype: np.dtype, index: Shape
) -> OrthogonalSlices:
    """Read a volume once, in slabs along z, and keep only three of its planes."""
    z, y, x = index
    axial = np.empty(shape[1:], dtype)
    coronal = np.empty((shape[0], shape[2]), dtype)
    sagittal = np.empty((shape[0], shape[1]), dtype)
    thickness = max(1, SLAB_BYTES // (shape[1] * shape[2] * dtype.itemsize))
    for start in range(0, shape[0], thickness):
        stop = min(start + thickness, shape[0])
        slab = read(start, stop)
        coronal[start:stop] = slab[:, y]
        sagittal[start:stop] = slab[:, :, x]
        if start <= z < stop:
            axial[:] = slab[z - start]
    return OrthogonalSlices(axial, coronal, sagittal, index)
