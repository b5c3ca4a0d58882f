"""The trained locator: save, load, scan in -> position out."""

from __future__ import annotations

from dataclasses import dataclass

from jawloc.geometry import Triple


@dataclass(frozen=True)
class Localisation:
    """Where one object is in one full-size scan.

    Attributes
    ----------
    point_voxels : (z, y, x) in voxels of the full-size scan, sub-voxel
    point_mm : point_voxels times the spacing; None where the spacing is unknown
    spread_voxels : root mean square distance of the probability map from the point, in
        voxels of the downsampled grid
    """

    scan_id: str
    object_name: str
    point_voxels: Triple
    point_mm: Triple | None
    spread_voxels: float
