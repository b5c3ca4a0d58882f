"""A cached file as a training example: the downsampled scan and its objects' positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, map_points
from jawloc.scans.cache.files import read_cached, read_record, source_of
from jawloc.scans.labels import object_centroids


@dataclass(frozen=True)
class Example:
    """One downsampled scan with the points to learn."""

    scan_id: str
    image: np.ndarray  # (z, y, x), mean grey values; integers if cached without a rescale
    # (z, y, x), label values as uint8, for pictures and the presence classifier; None where a scan
    # has points in place of a mask
    mask: np.ndarray | None
    # (object, 3): centroids of the full-size masks, or the points in place of them, in voxels of
    # `grid`; NaN for a missing object
    points_voxels: np.ndarray
    grid: Grid
    source_grid: Grid  # of the full-size scan
    key: str  # changes with the full-size scan's content, the target size and the algorithm
    source: Path  # the full-size file
    object_names: tuple[str, ...] = ("jaw",)  # in the order of the points
    content_hash: str = ""  # `jawloc.scans.downsample.hash_content` of the full-size scan


@dataclass(frozen=True)
class ExampleFile:
    """An example whose voxels are still in the file `cached`; the other attributes as in `Example`.

    Thousands of them need next to no memory.
    """

    cached: Path
    scan_id: str
    points_voxels: np.ndarray
    grid: Grid
    source_grid: Grid
    key: str
    source: Path
    object_names: tuple[str, ...] = ("jaw",)
    content_hash: str = ""
    has_mask: bool = True  # and not points in place of it
    # of each object's position in the loss, from 0 to 1; empty: 1 each
    label_weights: tuple[float, ...] = ()

    def read(self) -> Example:
        """Read the voxels; raise InputError if the cached file is damaged or was replaced."""
        scan = read_cached(self.cached)
        if scan.record.key != self.key:
            raise InputError(
                f"{self.cached.name}: a cached scan must not change while it is used; its key was "
                f"{self.key[:12]} and is now {scan.record.key[:12]}"
            )
        own = ("cached", "has_mask", "label_weights")
        shared = {name: value for name, value in vars(self).items() if name not in own}
        return Example(image=scan.image, mask=scan.mask, **shared)


def open_example(cached: Path, objects: Mapping[str, Sequence[int] | None]) -> ExampleFile:
    """Open a file of the cache, without its voxels, for the objects and their label values.

    Label values of None stand for every non-zero voxel. Raise InputError if the file isn't a
    cached scan, or the scan has no label of any object, or two points of one.
    """
    record = read_record(cached)
    source = source_of(cached, record)
    centroids = object_centroids(record.labels, objects, source.name)
    return ExampleFile(
        cached=cached,
        scan_id=record.scan_id,
        points_voxels=map_points(centroids, record.source_grid, record.grid),
        grid=record.grid,
        source_grid=record.source_grid,
        key=record.key,
        source=source,
        object_names=tuple(objects),
        content_hash=record.content_hash,
        has_mask=any(label.voxels for label in record.labels),
    )
