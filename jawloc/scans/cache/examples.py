"""A cached file as an example to learn from: the downsampled scan and where its objects are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jawloc.geometry import Grid, map_points
from jawloc.scans.cache.files import read_cached, source_of
from jawloc.scans.labels import object_centroids


@dataclass(frozen=True)
class Example:
    """One downsampled scan with the points to learn.

    Attributes
    ----------
    scan_id : str
        Of the full-size scan.
    image : array of integers, shape (z, y, x)
        Mean grey values.
    mask : array of uint8, shape (z, y, x)
        Label values, for pictures only.
    points_voxels : array of float64, shape (object, 3)
        Centroids of the objects' full-size masks, in voxels of `grid`.
    grid, source_grid : Grid
        Of the downsampled and of the full-size scan.
    key : str
        Changes with the content of the full-size scan, the target size and the algorithm.
    source : Path
        The full-size file.
    """

    scan_id: str
    image: np.ndarray
    mask: np.ndarray
    points_voxels: np.ndarray
    grid: Grid
    source_grid: Grid
    key: str
    source: Path


def load_example(cached: Path, objects: Mapping[str, Sequence[int] | None]) -> Example:
    """Read a cached file and place the objects on its grid.

    Parameters
    ----------
    cached : Path
        One of `CacheReport.cached`.
    objects : mapping of object name -> label values
        None stands for every non-zero voxel.

    Raises
    ------
    InputError
        If the file isn't a whole cached scan, or the scan has no voxel of an object.
    """
    scan = read_cached(cached)
    record = scan.record
    source = source_of(cached, record)
    centroids = object_centroids(record.labels, objects, source.name)
    return Example(
        scan_id=record.scan_id,
        image=scan.image,
        mask=scan.mask,
        points_voxels=map_points(centroids, record.source_grid, record.grid),
        grid=record.grid,
        source_grid=record.source_grid,
        key=record.key,
        source=source,
    )
