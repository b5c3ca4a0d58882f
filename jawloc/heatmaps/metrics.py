"""How good a batch of heatmaps and positions is, whichever number was trained on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HeatmapMetrics:
    """Scores of one pass over one split.

    Radial errors are Euclidean distances between predicted and true points: in voxels of the
    downsampled grid, and in mm (None where any scan's spacing is unknown).
    """

    kl_nats: float
    dice: float
    mse: float
    error_voxels: float  # mean radial error (MRE)
    error_voxels_median: float
    error_voxels_max: float
    error_mm: float | None
    error_mm_median: float | None
    error_mm_max: float | None
