"""Examples -> tensors."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from jawloc.geometry import Grid, Shape
from jawloc.scans.cache import ExampleFile
from jawloc.scans.cores import usable_cores
from jawloc.training.intensity import IntensityConfig, normalise

ReadImage = Callable[[int], Tensor]  # number of a scan -> its image
# Scans that stay in the cache: threads that read them, and batches that they are ahead.
READERS = 2
BATCHES_AHEAD = 2
DEVICE_SHARE = 0.5  # of a GPU's free memory: what the scans may take, the rest is for training


@dataclass(frozen=True)
class ScanTensors:
    """Scans ready for the network, in memory or read from the cache when their turn comes.

    Attributes
    ----------
    ids : scan ids, in the order of the tensors
    images : tensor, shape (row, 1, z, y, x); or a function that reads the scan of one row,
        (1, z, y, x)
    points : tensor, shape (scan, object, 3), voxels of the downsampled grid; NaN where a scan lacks
        an object
    voxel_sizes : tensor, shape (scan, 3), proportions of a voxel's edges along (z, y, x)
    grids : the downsampled grid of each scan
    object_names : in the order of the points
    rows : the row of each scan among the images, which others may share; None: as they come
    """

    ids: tuple[str, ...]
    images: Tensor | ReadImage
    points: Tensor
    voxel_sizes: Tensor
    grids: tuple[Grid, ...]
    object_names: tuple[str, ...] = ("jaw",)
    rows: tuple[int, ...] | None = None

    @property
    def shape_zyx(self) -> Shape:
        """Return the downsampled size that all scans share."""
        return self.grids[0].shape_zyx

    def batches(self, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images of each batch of scan numbers, shape (batch, 1, z, y, x).

        Scans that are not in memory are read ahead in other threads while the last batch is
        worked on.
        """
        rows = torch.tensor(self._rows, dtype=torch.long)
        batches = [rows[batch.cpu()] for batch in batches]
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

    @property
    def _rows(self) -> Sequence[int]:
        return range(len(self.ids)) if self.rows is None else self.rows

    def select(self, ids: Sequence[str]) -> ScanTensors:
        """Return the scans of these ids, in this order; the images stay where they are, shared."""
        numbers = [self.ids.index(scan_id) for scan_id in ids]
        return replace(
            self,
            ids=tuple(ids),
            points=self.points[numbers],
            voxel_sizes=self.voxel_sizes[numbers],
            grids=tuple(self.grids[i] for i in numbers),
            rows=tuple(self._rows[i] for i in numbers),
        )

    def on(self, device: torch.device) -> ScanTensors:
        """Return the scans with their images on a device, if they are in memory and fit there."""
        if not isinstance(self.images, Tensor) or device.type != "cuda":
            return self
        free, _ = torch.cuda.mem_get_info(device)
        one = self.images[0]
        if len(self.ids) * one.nbytes > DEVICE_SHARE * free:
            return self
        # scan by scan: chosen first and moved then, they would be in main memory twice
        images = torch.empty(len(self.ids), *one.shape, device=device)
        for moved, row in zip(images, self._rows, strict=True):
            moved.copy_(self.images[row])
        return replace(self, images=images, rows=None)


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
