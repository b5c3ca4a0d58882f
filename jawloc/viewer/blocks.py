"""What a viewer shows of a scan of any size: all of it coarsely, and full detail near a point.

The scan is read slab by slab and slice by slice: it is never in memory whole, unless it is small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from jawloc.geometry import Grid, Shape, Triple, map_points
from jawloc.inference.crop import CropBox, crop_box_around, read_crop
from jawloc.scans.downsample import downsample_image
from jawloc.scans.scan import ScanFile, scan_in_memory

OVERVIEW_VOXELS = 2**24
PROJECTED_VOXELS = 2**21  # what a computer without a graphics card turns without jerks
DETAIL_LENGTH = 256  # of a block at full detail, in voxels along each axis
_SHARE_IN_BLOCK = 0.25  # of its length, how near its border a point may come
_DARK, _BRIGHT = 1.0, 99.9  # percentiles shown as black and as white


@dataclass(frozen=True)
class Block:
    """Grey values on a grid of their own, and where it lies in the full-size scan."""

    image: np.ndarray  # (z, y, x)
    step_voxels: Triple  # from one value to the next, in voxels of the full-size scan
    start_voxels: Triple  # the centre of the first value, likewise


def smaller_shape(shape_zyx: Sequence[int], voxels: int) -> Shape:
    """Return a shape of at most about this many voxels, with the same proportions."""
    ratio = max(1.0, (prod(shape_zyx) / voxels) ** (1 / 3))
    z, y, x = (max(1, round(n / ratio)) for n in shape_zyx)
    return z, y, x


def spanning_block(image: np.ndarray, full: Grid) -> Block:
    """Return the block of an image (z, y, x) that spans a whole scan."""
    z, y, x = image.shape
    own = Grid((z, y, x))
    start, after = map_points(np.array([[0, 0, 0], [1, 1, 1]]), own, full)
    return Block(image, _triple(after - start), _triple(start))


def read_overview(scan: ScanFile) -> Block:
    """Read a whole scan, averaged onto at most about OVERVIEW_VOXELS."""
    shape = smaller_shape(scan.grid.shape_zyx, OVERVIEW_VOXELS)
    return spanning_block(downsample_image(scan, shape), scan.grid)


def read_projected(overview: Block, scan: ScanFile) -> Block:
    """Return an overview averaged further, for a projection that can be turned."""
    image = overview.image
    small = smaller_shape(image.shape, PROJECTED_VOXELS)
    z, y, x = image.shape
    in_memory = scan_in_memory(scan.path, image, Grid((z, y, x)))
    return spanning_block(downsample_image(in_memory, small), scan.grid)


def read_detail(scan: ScanFile, point_voxels: Sequence[float]) -> Block:
    """Read the voxels round a point at full detail, slice by slice."""
    window = detail_window(scan.grid.shape_zyx, point_voxels)
    image = read_crop(scan, window)
    return Block(image, (1.0, 1.0, 1.0), _triple(np.asarray(window.start_zyx)))


def detail_window(shape_zyx: Shape, point_voxels: Sequence[float]) -> CropBox:
    """Return the box, inside the scan, that is read at full detail round a point."""
    size = [min(DETAIL_LENGTH, n) for n in shape_zyx]
    return crop_box_around(point_voxels, size, shape_zyx)


def shows_detail(block: Block, shape_zyx: Sequence[int], point_voxels: Sequence[float]) -> bool:
    """Return whether a point is well inside a block, on each axis or as near as the scan allows."""
    start, length = np.asarray(block.start_voxels), np.asarray(block.image.shape)
    margin = length * _SHARE_IN_BLOCK
    below = (point_voxels >= start + margin) | (start <= 0)
    above = (point_voxels <= start + length - margin) | (start + length >= shape_zyx)
    return bool(np.all(below & above))


def grey_limits(image: np.ndarray) -> tuple[float, float]:
    """Return the grey values shown as black and as white."""
    dark, bright = np.percentile(image[::2, ::2, ::2], (_DARK, _BRIGHT))
    return float(dark), float(max(bright, dark + 1e-6 * max(1.0, abs(dark))))


def _triple(values: np.ndarray) -> Triple:
    z, y, x = (float(value) for value in values)
    return z, y, x
