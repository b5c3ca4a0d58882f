"""How good a batch of heatmaps and positions is, whichever number was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jawloc.geometry import Grid, voxels_to_mm


@dataclass(frozen=True)
class HeatmapMetrics:
    """Scores of one pass over one split.

    Radial errors are Euclidean distances between predicted and true points: in voxels of the
    downsampled grid, and in mm (None where any scan's spacing is unknown). Of an object, only the
    scans that show it count.
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
    # of several objects each one's own, if any scan shows it
    by_object: Mapping[str, HeatmapMetrics] = field(default_factory=dict)
    mse_relative: float | None = None  # to the target: what the loss "mse" trains on

    def flat(self) -> dict[str, float]:
        """Return every number that is known under its name: `error_mm`, `error_<object>_mm`, ..."""
        numbers = {
            key: value
            for key, value in vars(self).items()
            if key != "by_object" and value is not None
        }
        for name, metrics in self.by_object.items():
            for key, value in metrics.flat().items():
                what, _, unit = key.partition("_")
                numbers["_".join(filter(None, (what, name, unit)))] = value
        return numbers


@dataclass(frozen=True)
class HeatmapSample:
    """What one scan contributes to `HeatmapMetrics`; whatever is of a missing object is left out.

    Attributes
    ----------
    kl_nats, dice, mse, mse_relative : arrays, shape (object,)
    predicted, truth : arrays, shape (object, 3), voxels of `grid`; the truth of a missing object
        is NaN
    """

    kl_nats: np.ndarray
    dice: np.ndarray
    mse: np.ndarray
    mse_relative: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray
    grid: Grid

    @property
    def present(self) -> np.ndarray:
        """Say which objects the scan shows, shape (object,)."""
        shown: np.ndarray = ~np.isnan(self.truth).any(axis=-1)
        return shown

    def select(self, objects: slice | np.ndarray) -> HeatmapSample:
        """Return what some of the objects contribute."""
        numbers = {key: value[objects] for key, value in vars(self).items() if key != "grid"}
        return HeatmapSample(**numbers, grid=self.grid)


def radial_errors_voxels(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the distance between points (..., 3) in voxels, shape (...)."""
    return np.linalg.norm(np.asarray(predicted, float) - np.asarray(truth, float), axis=-1)


def radial_errors_mm(predicted: np.ndarray, truth: np.ndarray, grid: Grid) -> np.ndarray | None:
    """Return the distance between points (..., 3) of `grid` in mm; None without spacing."""
    offsets = voxels_to_mm(np.asarray(predicted, float) - np.asarray(truth, float), grid)
    return None if offsets is None else np.linalg.norm(offsets, axis=-1)


def summarise(samples: Sequence[HeatmapSample], names: Sequence[str] = ()) -> HeatmapMetrics:
    """Reduce scans to the numbers of a split; every object of every scan weighs the same.

    Parameters
    ----------
    names : of the objects; of several each gets its own numbers too.
    """
    shown = [s.select(s.present) for s in samples]
    voxels = np.concatenate([radial_errors_voxels(s.predicted, s.truth) for s in shown])
    mm_parts = [radial_errors_mm(s.predicted, s.truth, s.grid) for s in shown]
    known = [part for part in mm_parts if part is not None]
    mm = np.concatenate(known) if len(known) == len(samples) else None
    return HeatmapMetrics(
        kl_nats=float(np.mean(np.concatenate([s.kl_nats for s in shown]))),
        dice=float(np.mean(np.concatenate([s.dice for s in shown]))),
        mse=float(np.mean(np.concatenate([s.mse for s in shown]))),
        error_voxels=float(voxels.mean()),
        error_voxels_median=float(np.median(voxels)),
        error_voxels_max=float(voxels.max()),
        error_mm=None if mm is None else float(mm.mean()),
        error_mm_median=None if mm is None else float(np.median(mm)),
        error_mm_max=None if mm is None else float(mm.max()),
        by_object=_by_object(samples, names) if len(names) > 1 else {},
        mse_relative=float(np.mean(np.concatenate([s.mse_relative for s in shown]))),
    )


def _by_object(samples: Sequence[HeatmapSample], names: Sequence[str]) -> dict[str, HeatmapMetrics]:
    every = {}
    for number, name in enumerate(names):
        own = [s.select(slice(number, number + 1)) for s in samples if s.present[number]]
        if own:
            every[name] = summarise(own)
    return every
