"""What the header of a volume says, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Placement, Shape, Triple, placement_from_xyz
from jawloc.scans.volumes.voxels import StoredVoxels

# Axes this far from a right angle (cosine) are rounded; between others no place is known.
_MOST_COSINE = 1e-3


@dataclass(frozen=True)
class VolumeHeader:
    """What the header of a volume says."""

    voxels: StoredVoxels
    spacing_mm_zyx: Triple | None  # None: unknown
    placement: Placement | None  # None: the header has none
    # What is doubtful about the placement, as one line to warn of; empty: nothing
    doubt: str = ""
    rescale: tuple[float, float] = (1.0, 0.0)  # slope, intercept


def orthonormal_placement(
    origin_xyz: Sequence[float] | np.ndarray, axes_xyz: np.ndarray
) -> Placement | None:
    """Return the placement for an origin and axes in LPS, (x, y, z); None where they fix none.

    Axes are rarely exactly at right angles, as headers have few digits: those nearest to them
    that are (the polar decomposition) are taken, if no angle is off by more than 0.06 degrees.

    Parameters
    ----------
    axes_xyz : array (3, 3); column i is the direction, of any length, in which index i grows
    """
    lengths = np.linalg.norm(axes_xyz, axis=0)
    if not np.all(np.isfinite([*lengths, *origin_xyz])) or np.any(lengths == 0):
        return None
    unit = axes_xyz / lengths
    if np.abs(unit.T @ unit - np.eye(3)).max() > _MOST_COSINE:
        return None
    left, _, right = np.linalg.svd(unit)
    nearest = left @ right
    # what is orthonormal but for rounding stays as it is written
    exact = unit if np.allclose(nearest, unit, rtol=0, atol=1e-7) else nearest
    return placement_from_xyz(list(origin_xyz), exact.ravel().tolist())


def checked_shape(sizes_xyz: Sequence[int], path: Path) -> Shape:
    """Return (z, y, x); InputError if the sizes aren't those of a 3-D volume of several slices.

    A fourth dimension of one volume is none.
    """
    sizes = list(sizes_xyz)
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) != 3:
        raise InputError(
            f"{path.name}: a scan must be 3-D (x, y, z); its size is {tuple(sizes_xyz)}"
        )
    if min(sizes) < 1:
        raise InputError(f"{path.name}: a scan's sizes must be positive; they are {tuple(sizes)}")
    if sizes[2] < 2:
        raise InputError(f"{path.name}: a scan needs at least two slices; it has {sizes[2]}")
    return sizes[2], sizes[1], sizes[0]
