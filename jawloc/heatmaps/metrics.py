"""How good a batch of heatmaps and positions is, whichever number was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Grid, voxels_to_mm


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


@dataclass(frozen=True)
class HeatmapSample:
    """What one scan contributes to `HeatmapMetrics`: scores meant over its objects."""

    kl_nats: float
    dice: float
    mse: float
    predicted: np.ndarray  # (object, 3), voxels of `grid`
    truth: np.ndarray  # (object, 3), voxels of `grid`
    grid: Grid


def radial_errors_voxels(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the distance between points (..., 3) in voxels, shape (...)."""
    return np.linalg.norm(np.asarray(predicted, float) - np.asarray(truth, float), axis=-1)


def radial_errors_mm(predicted: np.ndarray, truth: np.ndarray, grid: Grid) -> np.ndarray | None:
    """Return the distance between points (..., 3) of `grid` in mm; None without spacing."""
    offsets = voxels_to_mm(np.asarray(predicted, float) - np.asarray(truth, float), grid)
    return None if offsets is None else np.linalg.norm(offsets, axis=-1)


def summarise(samples: Sequence[HeatmapSample]) -> HeatmapMetrics:
    """Reduce scans to the numbers of a split; every object of every scan weighs the same."""
    voxels = np.concatenate([radial_errors_voxels(s.predicted, s.truth) for s in samples])
    mm_parts = [radial_errors_mm(s.predicted, s.truth, s.grid) for s in samples]
    known = [part for part in mm_parts if part is not None]
    mm = np.concatenate(known) if len(known) == len(samples) else None
    return HeatmapMetrics(
        kl_nats=float(np.mean([s.kl_nats for s in samples])),
        dice=float(np.mean([s.dice for s in samples])),
        mse=float(np.mean([s.mse for s in samples])),
        error_voxels=float(voxels.mean()),
        error_voxels_median=float(np.median(voxels)),
        error_voxels_max=float(voxels.max()),
        error_mm=None if mm is None else float(mm.mean()),
        error_mm_median=None if mm is None else float(np.median(mm)),
        error_mm_max=None if mm is None else float(mm.max()),
    )
