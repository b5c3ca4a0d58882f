"""Splits, and Examples -> tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans.cache import Example

ScanIds = tuple[str | int, ...]
MINIMUM_SCANS = 3


@dataclass(frozen=True)
class SplitConfig:
    """Which scans validate and which test: so many from the end of the sorted ids, or these ids."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    validation_scans: Annotated[int, Field(ge=1)] | ScanIds = 1
    test_scans: Annotated[int, Field(ge=1)] | ScanIds = 1


@dataclass(frozen=True)
class Split:
    """Scan ids by what they are used for; no id is in two."""

    train_ids: tuple[str, ...]
    val_ids: tuple[str, ...]
    test_ids: tuple[str, ...]

    def titled(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return, by short name, the title and ids of the splits that training looks at."""
        return {"train": ("Training", self.train_ids), "val": ("Validation", self.val_ids)}


@dataclass(frozen=True)
class IntensityConfig:
    """How grey values become network input.

    ``percentile`` puts the `low` percentile of each scan at 0 and the `high` one at 1, so that
    scanner gain and offset drop out; ``raw`` leaves the values alone, as the lab trained.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    rule: Literal["percentile", "raw"] = "percentile"
    low: Annotated[float, Field(ge=0, le=100)] = 1.0
    high: Annotated[float, Field(ge=0, le=100)] = 99.5


@dataclass(frozen=True)
class ScanTensors:
    """Scans ready for the network.

    Attributes
    ----------
    ids : scan ids, in the order of the tensors
    images : tensor, shape (scan, 1, z, y, x)
    points : tensor, shape (scan, object, 3), voxels of the downsampled grid
    voxel_sizes : tensor, shape (scan, 3), proportions of a voxel's edges along (z, y, x)
    grids : the downsampled grid of each scan
    """

    ids: tuple[str, ...]
    images: Tensor
    points: Tensor
    voxel_sizes: Tensor
    grids: tuple[Grid, ...]


def choose_split(scan_ids: Sequence[str], config: SplitConfig) -> Split:
    """Split sorted ids; by default the last tests, the last but one validates, the rest train.

    Raises
    ------
    InputError
        Fewer than three scans, an unknown id, an id used twice, or nothing left to train on.
    """
    ids = sorted(scan_ids)
    if len(ids) < MINIMUM_SCANS:
        raise InputError(
            f"dicom_dirs: training needs at least {MINIMUM_SCANS} scans (one each to train, "
            f"validate and test); found {len(ids)}"
        )
    named = {
        key: _choose(value, ids)
        for key, value in vars(config).items()
        if not isinstance(value, int)
    }
    for key, chosen in named.items():
        _check_named(key, chosen, ids)
    taken = [i for chosen in named.values() for i in chosen]
    for scan_id in taken:
        if taken.count(scan_id) > 1:
            raise InputError(
                f"validation_scans, test_scans: a scan can be used for one purpose only; "
                f"{scan_id!r} is named twice"
            )
    free = [i for i in ids if i not in taken]
    test = _choose(config.test_scans, free)
    free = [i for i in free if i not in test]
    val = _choose(config.validation_scans, free)
    train = [i for i in free if i not in val]
    if not train or not val or not test:
        raise InputError(
            f"validation_scans, test_scans: at least one scan must be left to train on, one to "
            f"validate and one to test; of {len(ids)} scans these leave {len(train)}, {len(val)} "
            f"and {len(test)}"
        )
    return Split(tuple(train), tuple(sorted(val)), tuple(sorted(test)))


def normalise(image: np.ndarray, config: IntensityConfig) -> np.ndarray:
    """Turn grey values into network input (float32, same shape) by the intensity rule."""
    values = np.array(image, dtype=np.float32)  # a copy: tensors are made of it
    if config.rule == "raw":
        return values
    low, high = np.percentile(values, [config.low, config.high])
    if high <= low:  # nearly every voxel has one grey value
        low, high = values.min(), values.max()
    return (values - np.float32(low)) / np.float32(max(high - low, 1e-6))


def to_tensors(examples: Sequence[Example], intensity: IntensityConfig) -> ScanTensors:
    """Stack examples of one downsampled size."""
    images = np.stack([normalise(e.image, intensity) for e in examples])[:, None]
    points = np.stack([e.points_voxels for e in examples])
    sizes = np.stack([_voxel_proportions(e) for e in examples])
    return ScanTensors(
        ids=tuple(e.scan_id for e in examples),
        images=torch.from_numpy(images),
        points=torch.from_numpy(points).float(),
        voxel_sizes=torch.from_numpy(sizes).float(),
        grids=tuple(e.grid for e in examples),
    )


def _voxel_proportions(example: Example) -> np.ndarray:
    """Spacing where it is known; else the full-size voxels are taken to be cubes."""
    if example.grid.spacing_mm_zyx is not None:
        return np.asarray(example.grid.spacing_mm_zyx)
    return np.asarray(example.source_grid.shape_zyx) / np.asarray(example.grid.shape_zyx)


def _choose(wanted: int | ScanIds, free: list[str]) -> list[str]:
    """Return so many of the last free ids, or the ids that are named."""
    if isinstance(wanted, int):
        return free[max(0, len(free) - wanted) :]
    return [str(scan_id) for scan_id in wanted]


def _check_named(key: str, chosen: list[str], ids: list[str]) -> None:
    for scan_id in chosen:
        if scan_id not in ids:
            raise InputError(f"{key}: {scan_id!r} is not among the scans; they are {_some(ids)}")


def _some(ids: list[str]) -> str:
    shown = ", ".join(ids[:5])
    return shown if len(ids) <= 5 else f"{shown} ... {ids[-1]} ({len(ids)} in all)"
