"""Metrics of heatmaps and positions over the scans of a split, whichever loss was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jawloc.geometry import Grid, voxels_to_mm


@dataclass(frozen=True)
class HeatmapMetrics:
    """Metrics of one pass over one split; for each object, the scans that show it count.

    Radial errors are distances between predicted and true points in voxels of the downsampled grid,
    and in mm (None where any scan's spacing is unknown).
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
    by_object: Mapping[str, HeatmapMetrics] = field(default_factory=dict)  # where there are several
    mse_relative: float | None = None  # the loss "mse" of `HeatmapScores`

    def flat(self) -> dict[str, float]:
        """Return each known number by its name: `error_mm`, `error_<object>_mm`, ..."""
        known = {k: v for k, v in vars(self).items() if k != "by_object" and v is not None}
        for name, metrics in self.by_object.items():
            for key, value in metrics.flat().items():
                metric, _, unit = key.partition("_")
                known["_".join(filter(None, (metric, name, unit)))] = value
        return known


@dataclass(frozen=True)
class HeatmapSample:
    """One scan's part of `HeatmapMetrics`; objects whose truth is NaN are missing and left out."""

    kl_nats: np.ndarray  # (object,), as are the next three
    dice: np.ndarray
    mse: np.ndarray
    mse_relative: np.ndarray
    predicted: np.ndarray  # (object, 3), voxels of `grid`
    truth: np.ndarray  # likewise
    grid: Grid

    def select(self, objects: slice) -> HeatmapSample:
        """Return the sample of those of these objects that the scan shows."""
        shown = ~np.isnan(self.truth[objects]).any(axis=-1)
        arrays = {key: value[objects][shown] for key, value in vars(self).items() if key != "grid"}
        return HeatmapSample(**arrays, grid=self.grid)


def radial_errors_voxels(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the distance between points (..., 3) in voxels, shape (...)."""
    return np.linalg.norm(np.asarray(predicted, float) - np.asarray(truth, float), axis=-1)


def radial_errors_mm(predicted: np.ndarray, truth: np.ndarray, grid: Grid) -> np.ndarray | None:
    """Return the distance between points (..., 3) of `grid` in mm; None without spacing."""
    offsets = voxels_to_mm(np.asarray(predicted, float) - np.asarray(truth, float), grid)
    return None if offsets is None else np.linalg.norm(offsets, axis=-1)


def summarise(samples: Sequence[HeatmapSample], names: Sequence[str] = ()) -> HeatmapMetrics:
    """Average over a split's scans, every object of every scan with the same weight.

    With several object names, `by_object` holds the metrics of each object that any scan shows.
    """
    shown = [s.select(slice(None)) for s in samples]
    voxels = np.concatenate([radial_errors_voxels(s.predicted, s.truth) for s in shown])
    mm_parts = [radial_errors_mm(s.predicted, s.truth, s.grid) for s in shown]
    known = [part for part in mm_parts if part is not None]
    mm = np.concatenate(known) if len(known) == len(samples) else None
    scores = {
        key: float(np.mean(np.concatenate([getattr(s, key) for s in shown])))
        for key in ("kl_nats", "dice", "mse", "mse_relative")
    }
    return HeatmapMetrics(
        error_voxels=float(voxels.mean()),
        error_voxels_median=float(np.median(voxels)),
        error_voxels_max=float(voxels.max()),
        error_mm=None if mm is None else float(mm.mean()),
        error_mm_median=None if mm is None else float(np.median(mm)),
        error_mm_max=None if mm is None else float(mm.max()),
        by_object=_by_object(samples, names) if len(names) > 1 else {},
        **scores,
    )


def _by_object(samples: Sequence[HeatmapSample], names: Sequence[str]) -> dict[str, HeatmapMetrics]:
    by_name = {}
    for index, name in enumerate(names):
        shown = [s.select(slice(index, index + 1)) for s in samples]
        shown = [s for s in shown if len(s.truth)]
        if shown:
            by_name[name] = summarise(shown)
    return by_name
