"""Splits, and Examples -> tensors."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, ConfigDict, Field
from torch import Tensor

from jawloc.errors import InputError
from jawloc.geometry import Grid, Shape
from jawloc.scans.cache import ExampleFile
from jawloc.scans.cores import usable_cores
from jawloc.training.intensity import IntensityConfig, normalise
from jawloc.training.specimens import SPECIMEN_PATTERN, checked_pattern

ScanIds = tuple[str | int, ...]
ReadImage = Callable[[int], Tensor]  # number of a scan -> its image
MINIMUM_SCANS = 3
# Scans that stay in the cache: threads that read them, and batches that they are ahead.
READERS = 2
BATCHES_AHEAD = 2
DEVICE_SHARE = 0.5  # of a GPU's free memory: what the scans may take, the rest is for training


@dataclass(frozen=True)
class SplitConfig:
    """Which scans validate and which test: so many from the end of the sorted ids, or these ids."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    validation_scans: Annotated[int, Field(ge=1)] | ScanIds = 1
    test_scans: Annotated[int, Field(ge=1)] | ScanIds = 1
    # Its one group is what the ids of all scans of one specimen have in common; with --folds.
    specimen_pattern: Annotated[str, AfterValidator(checked_pattern)] = SPECIMEN_PATTERN


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
class ScanTensors:
    """Scans ready for the network, in memory or read from the cache when their turn comes.

    Attributes
    ----------
    ids : scan ids, in the order of the tensors
    images : tensor, shape (scan, 1, z, y, x); or a function that reads one scan, (1, z, y, x)
    points : tensor, shape (scan, object, 3), voxels of the downsampled grid; NaN where a scan lacks
        an object
    voxel_sizes : tensor, shape (scan, 3), proportions of a voxel's edges along (z, y, x)
    grids : the downsampled grid of each scan
    object_names : in the order of the points
    """

    ids: tuple[str, ...]
    images: Tensor | ReadImage
    points: Tensor
    voxel_sizes: Tensor
    grids: tuple[Grid, ...]
    object_names: tuple[str, ...] = ("jaw",)

    @property
    def shape_zyx(self) -> Shape:
        """Return the downsampled size that all scans share."""
        return self.grids[0].shape_zyx

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each batch of scan numbers, shape (batch, 1, z, y, x).

        Scans that are not in memory are read ahead in other threads while the last batch is
        worked on.
        """
        if isinstance(self.images, Tensor):
            for batch in batches:
                yield self.images[batch.to(self.images.device)]
            return
        with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:
            ahead: deque[list[Future[Tensor]]] = deque()
            for batch in batches[:BATCHES_AHEAD]:
                ahead.append([pool.submit(self.images, i) for i in batch.tolist()])
            try:
                for number in range(len(batches)):
                    images = [future.result() for future in ahead.popleft()]
                    for batch in batches[number + BATCHES_AHEAD : number + BATCHES_AHEAD + 1]:
                        ahead.append([pool.submit(self.images, i) for i in batch.tolist()])
                    yield torch.stack(images) if images else torch.empty(0, 1, *self.shape_zyx)
            finally:
                pool.shutdown(cancel_futures=True)

    def of(self, ids: Sequence[str]) -> ScanTensors:
        """Return the scans of these ids, in this order; a copy where they are in memory."""
        numbers = [self.ids.index(scan_id) for scan_id in ids]
        images = self.images
        if isinstance(images, Tensor):
            chosen: Tensor | ReadImage = images[numbers]
        else:
            read = images
            chosen = lambda i: read(numbers[i])  # noqa: E731
        return ScanTensors(
            ids=tuple(ids),
            images=chosen,
            points=self.points[numbers],
            voxel_sizes=self.voxel_sizes[numbers],
            grids=tuple(self.grids[i] for i in numbers),
            object_names=self.object_names,
        )

    def on(self, device: torch.device) -> ScanTensors:
        """Return the scans with their images on a device, if they are in memory and fit there."""
        if not isinstance(self.images, Tensor) or device.type != "cuda":
            return self
        free, _ = torch.cuda.mem_get_info(device)
        if self.images.nbytes > DEVICE_SHARE * free:
            return self
        return replace(self, images=self.images.to(device))


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
    wanted = {"validation_scans": config.validation_scans, "test_scans": config.test_scans}
    named = {key: _choose(v, ids) for key, v in wanted.items() if not isinstance(v, int)}
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


def choose_folds(split: Split, folds: int) -> tuple[Split, ...]:
    """Share all but the test scans out among so many folds: each scan validates in one of them.

    Raises
    ------
    InputError
        Fewer than two folds, or fewer scans than folds.
    """
    ids = sorted((*split.train_ids, *split.val_ids))
    if not 2 <= folds <= len(ids):
        raise InputError(
            f"--folds: from 2 to the number of scans that aren't for testing ({len(ids)}); "
            f"received {folds}"
        )
    parts = [ids[first::folds] for first in range(folds)]
    return tuple(
        Split(tuple(i for i in ids if i not in part), tuple(part), split.test_ids) for part in parts
    )


def check_objects(
    split: Split, shown: Mapping[str, Collection[str]], names: Sequence[str], *, fold: bool = False
) -> None:
    """Refuse objects that can't be learned, judged or tested for want of a scan that shows them.

    Parameters
    ----------
    shown : the names of the objects in each scan, by scan id
    names : of all objects
    fold : whether the split is one of several, which judge together: each has only to learn.

    Raises
    ------
    InputError
        About every object that no training, validation or test scan shows.
    """
    uses = {"training": split.train_ids}
    if not fold:
        uses |= {"validation": split.val_ids, "test": split.test_ids}
    complaints = []
    for name in names:
        lacking = [use for use, ids in uses.items() if not any(name in shown[i] for i in ids)]
        if not any(name in objects for objects in shown.values()):
            complaints.append(f"{name!r} is in no scan at all")
        elif lacking:
            complaints.append(f"{name!r} is in no {' and no '.join(lacking)} scan")
    if complaints:
        needed = "training scan of each fold" if fold else "training, validation and test scan"
        raise InputError(f"objects: each must be in at least one {needed}; {', '.join(complaints)}")


def load_scans(
    examples: Sequence[ExampleFile], intensity: IntensityConfig, memory_budget_gb: float
) -> ScanTensors:
    """Make examples of one downsampled size ready for the network.

    Parameters
    ----------
    memory_budget_gb : float
        Scans that need more memory than this together (4 bytes a voxel; 1 GB is 10^9 bytes) stay
        in the cache and are read batch by batch.
    """
    shape = examples[0].grid.shape_zyx
    images: Tensor | ReadImage

    def read(number: int) -> Tensor:
        return torch.from_numpy(normalise(examples[number].read().image, intensity))[None]

    if 4 * math.prod(shape) * len(examples) > memory_budget_gb * 1e9:
        images = read
    else:
        images = torch.empty(len(examples), 1, *shape)
        with ThreadPoolExecutor(usable_cores()) as pool:
            # each thread fills its own part: finished scans would otherwise wait, held twice
            every = zip(images, range(len(examples)), strict=True)
            deque(pool.map(lambda pair: pair[0].copy_(read(pair[1])), every), maxlen=0)
    points = np.stack([e.points_voxels for e in examples])
    sizes = np.stack([voxel_proportions(e) for e in examples])
    return ScanTensors(
        ids=tuple(e.scan_id for e in examples),
        images=images,
        points=torch.from_numpy(points).float(),
        voxel_sizes=torch.from_numpy(sizes).float(),
        grids=tuple(e.grid for e in examples),
        object_names=examples[0].object_names,
    )


def voxel_proportions(example: ExampleFile) -> np.ndarray:
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
