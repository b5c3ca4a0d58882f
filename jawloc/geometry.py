"""Grids, and points between them.

Every array and every point in jawloc is ordered (z, y, x). A voxel's centre is its integer
index, so an axis of n voxels spans -0.5 ... n - 0.5. Resampling and point mapping share the one
rule that follows from it: ``t = (s + 0.5) * n_t / n_s - 0.5``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Grid:
    """The voxel grid of a volume.

    Attributes
    ----------
    shape_zyx : tuple of int
        Number of voxels along (z, y, x).
    spacing_mm_zyx : tuple of float or None
        Millimetres from one voxel centre to the next along (z, y, x); None if unknown.
    """

    shape_zyx: Shape
    spacing_mm_zyx: Triple | None = None

    def resized(self, shape_zyx: Sequence[int]) -> Grid:
        """Return the grid that spans the same space with other voxel counts."""
        z, y, x = (int(n) for n in shape_zyx)
        if self.spacing_mm_zyx is None:
            return Grid((z, y, x))
        mm = [
            s * n / m
            for s, n, m in zip(self.spacing_mm_zyx, self.shape_zyx, (z, y, x), strict=True)
        ]
        return Grid((z, y, x), (mm[0], mm[1], mm[2]))


@dataclass(frozen=True)
class Placement:
    """Where a volume lies in DICOM's patient space: L (to the left), P (to the back), S (up).

    Points in that space are ordered (z, y, x) as everywhere, which means (S, P, L).

    Attributes
    ----------
    origin_lps_mm_zyx : tuple of float
        The centre of voxel (0, 0, 0).
    axes_zyx : three tuples of float
        Unit vectors along which the indices z, y and x grow, each (z, y, x).
    """

    origin_lps_mm_zyx: Triple = (0.0, 0.0, 0.0)
    axes_zyx: tuple[Triple, Triple, Triple] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def map_points(points_voxels: np.ndarray, source: Grid, target: Grid) -> np.ndarray:
    """Map points from one grid to another that spans the same space.

    Parameters
    ----------
    points_voxels : array, shape (..., 3)
        Points (z, y, x) in voxels of `source`.

    Returns
    -------
    array of float64, shape (..., 3), in voxels of `target`.
    """
    ratio = np.asarray(target.shape_zyx, float) / np.asarray(source.shape_zyx, float)
    return (np.asarray(points_voxels, float) + 0.5) * ratio - 0.5


def voxels_to_mm(offsets_voxels: np.ndarray, grid: Grid) -> np.ndarray | None:
    """Scale offsets (..., 3) in voxels of `grid` to millimetres; None where spacing is unknown."""
    if grid.spacing_mm_zyx is None:
        return None
    return np.asarray(offsets_voxels, float) * np.asarray(grid.spacing_mm_zyx)


def voxels_to_lps_mm(
    points_voxels: np.ndarray, grid: Grid, placement: Placement | None
) -> np.ndarray | None:
    """Map points (..., 3) to patient space; None where spacing or placement is unknown."""
    along = voxels_to_mm(points_voxels, grid)
    if along is None or placement is None:
        return None
    return along @ np.asarray(placement.axes_zyx) + np.asarray(placement.origin_lps_mm_zyx)


def lps_mm_to_voxels(points_lps_mm: np.ndarray, grid: Grid, placement: Placement) -> np.ndarray:
    """Map points (..., 3) of patient space to voxels: the inverse of `voxels_to_lps_mm`.

    Raise ValueError if the grid's spacing is unknown.
    """
    if grid.spacing_mm_zyx is None:
        raise ValueError("points in mm can't be mapped to voxels of an unknown spacing")
    steps = np.asarray(placement.axes_zyx) * np.asarray(grid.spacing_mm_zyx)[:, None]
    offsets = np.asarray(points_lps_mm, float) - np.asarray(placement.origin_lps_mm_zyx)
    # not the transpose: axes that a file gives with few digits aren't quite at right angles
    return offsets @ np.linalg.inv(steps)


def placement_from_xyz(origin: Sequence[float], direction: Sequence[float]) -> Placement:
    """Return the placement for an image library's origin and direction, both in x, y, z.

    Parameters
    ----------
    origin : three numbers in mm
    direction : nine direction cosines, row by row; column i is the vector of index i
    """
    axes = np.asarray(direction, float).reshape(3, 3).T[::-1, ::-1]
    z, y, x = ((float(a), float(b), float(c)) for a, b, c in axes)
    return Placement((float(origin[2]), float(origin[1]), float(origin[0])), (z, y, x))


def placement_to_xyz(placement: Placement) -> tuple[list[float], list[float]]:
    """Return origin and direction in x, y, z: the inverse of `placement_from_xyz`."""
    direction = np.asarray(placement.axes_zyx)[::-1, ::-1].T
    return list(placement.origin_lps_mm_zyx[::-1]), [float(v) for v in direction.ravel()]
