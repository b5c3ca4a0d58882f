"""Cached examples -> tensors."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jawloc.geometry import Grid, Shape
from jawloc.heatmaps.target import are_present
from jawloc.scans.cache import Example, ExampleFile
from jawloc.scans.cores import usable_cores
from jawloc.scans.labels import Objects, voxels_by_object
from jawloc.scans.progress import Progress
from jawloc.training.intensity import IntensityConfig, normalise
from jawloc.training.stage_input import pool_volume

ReadImage = Callable[[int], Tensor]  # number of a scan -> its image
READERS = 2  # threads that read scans from the cache
BATCHES_AHEAD = 2
DEVICE_SHARE = 0.5  # of a GPU's free memory for the scans; the rest is for training


@dataclass(frozen=True)
class ScanTensors:
    """Scans ready for the network, in memory or read from the cache batch by batch."""

    ids: tuple[str, ...]
    # (row, 1, z, y, x), or reads one row's scan, (1, z, y, x). With masks, a channel more for each
    # object: 1 in its mask, 0 outside; NaN where the scan has no mask, or lacks the object.
    images: Tensor | ReadImage
    points: Tensor  # (scan, object, 3), downsampled voxels; NaN where a scan lacks an object
    voxel_sizes: Tensor  # (scan, 3), proportions of a voxel's edges along (z, y, x)
    grids: tuple[Grid, ...]  # downsampled
    object_names: tuple[str, ...] = ("jaw",)
    rows: tuple[int, ...] | None = None  # of each scan in the images, if others share these
    has_mask: tuple[bool, ...] = ()  # of each scan; empty: the images have no channels of masks
    weights: Tensor | None = None  # (scan, object), of each position in the loss; None: 1 each
    pooled: Tensor | None = None  # (row, 1, z, y, x), images averaged for the coarse stage

    @property
    def shape_zyx(self) -> Shape:
        """Return the downsampled size that all scans share."""
        return self.grids[0].shape_zyx

    @property
    def _rows(self) -> Sequence[int]:
        return range(len(self.ids)) if self.rows is None else self.rows

    def batches(self, batches: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Yield the images of each batch of scan numbers, each of shape (channel, z, y, x).

        Those in memory are not copied: of a large grid, little may be looked at. Others are read
        ahead in other threads.
        """
        numbers = [[self._rows[i] for i in batch.tolist()] for batch in batches]
        if isinstance(self.images, Tensor):
            for rows in numbers:
                yield [self.images[row] for row in rows]
            return
        with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:
            ahead: deque[list[Future[Tensor]]] = deque()
            try:
                for step, rows in enumerate(chain(numbers, [[]] * BATCHES_AHEAD)):
                    ahead.append([pool.submit(self.images, row) for row in rows])
                    if step >= BATCHES_AHEAD:
                        yield [future.result() for future in ahead.popleft()]
            finally:
                pool.shutdown(cancel_futures=True)

    def pooled_by(self, factor: int) -> ScanTensors:
        """Return the scans with their images averaged once for all, if they are in memory."""
        if factor == 1 or not isinstance(self.images, Tensor):
            return self
        images = [pool_volume(image[:1], factor) for image in self.images]
        return replace(self, pooled=torch.stack(images))

    def pooled_batch(self, batch: Tensor, device: torch.device) -> list[Tensor] | None:
        """Return the averaged images of a batch of scan numbers on a device, if they are known."""
        if self.pooled is None:
            return None
        return [self.pooled[self._rows[i]].to(device) for i in batch.tolist()]

    def count_masks(self, batch: Tensor) -> int:
        """Return how many masks of objects a batch of scan numbers has."""
        masked = [i for i in batch.tolist() if self.has_mask[i]]
        return int(are_present(self.points[masked]).sum())

    def select(self, ids: Sequence[str]) -> ScanTensors:
        """Return the scans of these ids, in this order; the images are shared, not copied."""
        return self.take([self.ids.index(scan_id) for scan_id in ids])

    def take(self, numbers: Sequence[int]) -> ScanTensors:
        """Return the scans of these numbers, likewise."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in numbers),
            points=self.points[numbers],
            voxel_sizes=self.voxel_sizes[numbers],
            grids=tuple(self.grids[i] for i in numbers),
            rows=tuple(self._rows[i] for i in numbers),
            has_mask=tuple(self.has_mask[i] for i in numbers) if self.has_mask else (),
            weights=None if self.weights is None else self.weights[numbers],
        )

    def on(self, device: torch.device) -> ScanTensors:
        """Return the scans with their images on a device, if they are in memory and fit there."""
        if not isinstance(self.images, Tensor) or device.type != "cuda":
            return self
        free, _ = torch.cuda.mem_get_info(device)
        one = self.images[0]
        if len(self.ids) * one.nbytes > DEVICE_SHARE * free:
            return self
        # scan by scan: indexing all rows at once would copy them in main memory first
        images = torch.empty(len(self.ids), *one.shape, device=device)
        for moved, row in zip(images, self._rows, strict=True):
            moved.copy_(self.images[row])
        return replace(self, images=images, rows=None, pooled=None)


def load_scans(
    examples: Sequence[ExampleFile],
    intensity: IntensityConfig,
    memory_budget_gb: float,
    objects: Objects | None = None,
) -> ScanTensors:
    """Make examples of one downsampled size ready for the network.

    Scans that together need more memory than the budget (4 bytes a voxel, of image and each mask;
    1 GB is 10^9 bytes) stay in the cache and are read batch by batch. `objects` are those whose
    masks are wanted, too, if any example has one.
    """
    shape = examples[0].grid.shape_zyx
    if objects is not None and not any(example.has_mask for example in examples):
        objects = None
    channels = 1 + len(objects or ())

    def read(number: int) -> Tensor:
        example = examples[number].read()
        image = torch.from_numpy(normalise(example.image, intensity))[None]
        return image if objects is None else torch.cat([image, _masks(example, objects)])

    images: Tensor | ReadImage = read
    if 4 * math.prod(shape) * channels * len(examples) <= memory_budget_gb * 1e9:
        images = torch.empty(len(examples), channels, *shape)
        with ThreadPoolExecutor(usable_cores()) as pool:
            # each thread fills its own part: stacking a list at the end would hold it twice
            filled = pool.map(lambda i, image: image.copy_(read(i)), range(len(images)), images)
            how: dict[str, Any] = {"total": len(images), "unit": "scan", "brief": True}
            deque(Progress(filled, desc="loading", **how), 0)
    points = np.stack([e.points_voxels for e in examples])
    sizes = np.stack([voxel_proportions(e) for e in examples])
    return ScanTensors(
        ids=tuple(e.scan_id for e in examples),
        images=images,
        points=torch.from_numpy(points).float(),
        voxel_sizes=torch.from_numpy(sizes).float(),
        grids=tuple(e.grid for e in examples),
        object_names=examples[0].object_names,
        has_mask=() if objects is None else tuple(e.has_mask for e in examples),
        weights=_weights(examples),
    )


def _weights(examples: Sequence[ExampleFile]) -> Tensor | None:
    """Return the weight of each position in the loss, (scan, object); None where all are 1."""
    if not any(example.label_weights for example in examples):
        return None
    rows = [e.label_weights or (1.0,) * len(e.object_names) for e in examples]
    return torch.tensor(rows, dtype=torch.float32)


def _masks(example: Example, objects: Objects) -> Tensor:
    """Return a scan's masks, (object, z, y, x): 1 or 0, or NaN where it has points only.

    An object without a point is NaN, too: a label that nobody drew is missing, not absent.
    """
    if example.mask is None:
        return torch.full((len(objects), *example.grid.shape_zyx), math.nan)
    masks = np.stack(voxels_by_object(example.mask, objects)).astype(np.float32)
    masks[np.isnan(example.points_voxels).any(axis=1)] = math.nan
    return torch.from_numpy(masks)


def voxel_proportions(example: Example | ExampleFile) -> np.ndarray:
    """Return the voxel's edges along (z, y, x), in mm or, if unknown, in full-size voxels."""
    if example.grid.spacing_mm_zyx is not None:
        return np.asarray(example.grid.spacing_mm_zyx)
    return full_size_edges(example)


def full_size_edges(example: Example | ExampleFile) -> np.ndarray:
    """Return the downsampled voxel's edges along (z, y, x), in voxels of the full-size scan."""
    return np.asarray(example.source_grid.shape_zyx) / np.asarray(example.grid.shape_zyx)
