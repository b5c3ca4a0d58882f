"""Turns tubes and ellipsoids given in millimetres into anti-aliased voxels, slab by slab.

Every value depends only on the voxel's own position, never on where a slab begins, so a scan
made in slabs of any thickness is the same scan. Nothing here depends on the fish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Grid
from jawloc.phantom.shapes import Ellipsoid, Tubes

# Boxes are drawn together in batches of about this many voxels, which fit a core's cache.
BATCH_VOXELS = 60_000
# A tube thinner than this many voxels (radius) is spread over its neighbours instead of drawn.
THIN_RADIUS_VOXELS = 0.5
# Labelled tubes are thickened by this much (as the legs of a right angle add), in voxels.
MASK_RADIUS_VOXELS = 0.65


@dataclass(frozen=True)
class GridSlab:
    """Slices first_slice ... first_slice + n - 1 of a grid, being filled."""

    grid: Grid
    first_slice: int

    def spacing(self) -> np.ndarray:
        """Return the spacing (3,) in mm."""
        return np.asarray(self.grid.spacing_mm_zyx, float)

    def voxel_mm(self) -> float:
        """Return the edge of a cube as large as a voxel."""
        return float(np.prod(self.spacing()) ** (1 / 3))


def covered_fraction(depth_mm: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Return the share of a voxel that lies inside a surface, given its centre's depth below it."""
    return np.clip(depth_mm * np.float32(1 / voxel_mm) + np.float32(0.5), 0, 1)


def wall_fraction(depth_mm: np.ndarray, wall_mm: float, voxel_mm: float) -> np.ndarray:
    """Return the share of a voxel inside a wall of given thickness below a surface."""
    return covered_fraction(depth_mm, voxel_mm) - covered_fraction(
        depth_mm - np.float32(wall_mm), voxel_mm
    )


def draw_ellipsoids(image: np.ndarray, ellipsoids: Sequence[Ellipsoid], window: GridSlab) -> None:
    """Paint ellipsoids one over the other into `image` (slices, y, x)."""
    spacing, voxel_mm = window.spacing(), window.voxel_mm()
    last = window.first_slice + len(image)
    for ellipsoid in ellipsoids:
        shape_matrix = ellipsoid.to_unit_ball.T @ ellipsoid.to_unit_ball
        half = np.sqrt(np.diag(np.linalg.inv(shape_matrix))) + voxel_mm
        low = np.floor((ellipsoid.centre_mm - half) / spacing).astype(int)
        high = np.ceil((ellipsoid.centre_mm + half) / spacing).astype(int) + 1
        low = np.maximum(low, (window.first_slice, 0, 0))
        high = np.minimum(high, (last, *image.shape[1:]))
        if np.any(low >= high):
            continue
        z, y, x = (
            ((np.arange(low[a], high[a]) + 0.5) * spacing[a] - ellipsoid.centre_mm[a]).astype("f4")
            for a in range(3)
        )
        z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
        m = shape_matrix.astype("f4")
        gz, gy, gx = (m[a, 0] * z + m[a, 1] * y + m[a, 2] * x for a in range(3))
        squared = z * gz + y * gy + x * gx
        slope = 2 * np.sqrt(gz * gz + gy * gy + gx * gx) + np.float32(1e-6)
        depth = (1 - squared) / slope
        share = (
            covered_fraction(depth, voxel_mm)
            if np.isinf(ellipsoid.wall_mm)
            else wall_fraction(depth, ellipsoid.wall_mm, voxel_mm)
        )
        box = image[
            low[0] - window.first_slice : high[0] - window.first_slice,
            low[1] : high[1],
            low[2] : high[2],
        ]
        box += share * (np.float32(ellipsoid.level) - box)


def draw_tubes(layer: np.ndarray, tubes: Tubes, window: GridSlab) -> None:
    """Raise `layer` (slices, y, x) to the density of the tubes where they lie."""
    voxel_mm = window.voxel_mm()
    ceiling = float(tubes.density.max())
    tubes = tubes.take(_near(tubes, window, len(layer)))
    radius = (tubes.start_radius_mm + tubes.end_radius_mm) / 2
    thin = radius < THIN_RADIUS_VOXELS * voxel_mm
    if thin.any():
        _spread_thin_tubes(layer, tubes.take(thin), ceiling, window)
    thick = tubes.take(~thin)
    if len(thick.label):
        _draw_thick_tubes(layer, thick.split(10 * voxel_mm + 2 * radius[~thin]), window)


def _near(tubes: Tubes, window: GridSlab, count: int) -> np.ndarray:
    """Return which tubes can reach any of the window's `count` slices (bool)."""
    hz = window.spacing()[0]
    reach = np.maximum(tubes.start_radius_mm, tubes.end_radius_mm) + window.voxel_mm() + hz
    low = np.minimum(tubes.start_mm[:, 0], tubes.end_mm[:, 0]) - reach
    high = np.maximum(tubes.start_mm[:, 0], tubes.end_mm[:, 0]) + reach
    first = window.first_slice * hz
    return (high >= first) & (low <= first + count * hz)


def label_tubes(mask: np.ndarray, tubes: Tubes, window: GridSlab) -> None:
    """Write the tubes' labels into `mask` (uint8), thickened enough to leave no gaps.

    However coarse the grid, the voxels that hold the tubes' ends are labelled.
    """
    least = MASK_RADIUS_VOXELS * window.voxel_mm()
    for label in np.unique(tubes.label):
        part = tubes.take(tubes.label == label)
        # Thickened like this, thick tubes keep their greater weight, so the centroid stays put.
        fat = Tubes(
            part.start_mm,
            part.end_mm,
            np.hypot(part.start_radius_mm, least),
            np.hypot(part.end_radius_mm, least),
            part.wall_mm,
            np.ones_like(part.density),
            part.label,
        )
        layer = np.zeros(mask.shape, "f4")
        draw_tubes(layer, fat, window)
        mask[layer > 0.5] = label
        index = np.floor(part.start_mm / window.spacing()).astype(int)
        index[:, 0] -= window.first_slice
        inside = np.all((index >= 0) & (index < mask.shape), axis=1)
        mask[tuple(index[inside].T)] = label


def _spread_thin_tubes(layer: np.ndarray, tubes: Tubes, ceiling: float, window: GridSlab) -> None:
    """Share the tubes' volume out to the voxels around them (trilinear weights)."""
    spacing, voxel_mm = window.spacing(), window.voxel_mm()
    samples = tubes.split(np.full(len(tubes.label), 0.5 * voxel_mm))
    middle = (samples.start_mm + samples.end_mm) / 2
    place = middle / spacing - 0.5
    base = np.floor(place).astype(int)
    base[:, 0] -= window.first_slice
    near = (base[:, 0] >= -1) & (base[:, 0] < len(layer))
    samples, base, part = (samples.take(near), base[near], (place - np.floor(place))[near])
    radius = (samples.start_radius_mm + samples.end_radius_mm) / 2
    hollow = np.maximum(radius - samples.wall_mm, 0)
    length = np.linalg.norm(samples.end_mm - samples.start_mm, axis=1)
    volume = np.pi * (radius**2 - hollow**2) * length / np.prod(spacing)
    mass = samples.density * volume
    total = np.zeros(layer.size)
    for corner in np.ndindex(2, 2, 2):
        index = base + corner
        weight = np.prod(np.where(corner, part, 1 - part), axis=1) * mass
        inside = np.all((index >= 0) & (index < layer.shape), axis=1)
        flat = np.ravel_multi_index(tuple(index[inside].T), layer.shape)
        total += np.bincount(flat, weight[inside], layer.size)
    np.maximum(layer, np.minimum(total, ceiling).reshape(layer.shape), out=layer, casting="unsafe")


def _draw_thick_tubes(layer: np.ndarray, tubes: Tubes, window: GridSlab) -> None:
    """Draw each tube in the box round it, boxes of like size together."""
    spacing, voxel_mm = window.spacing(), window.voxel_mm()
    reach = (np.maximum(tubes.start_radius_mm, tubes.end_radius_mm) + 0.5 * voxel_mm)[:, None]
    low = np.floor((np.minimum(tubes.start_mm, tubes.end_mm) - reach) / spacing - 0.5).astype(int)
    high = np.ceil((np.maximum(tubes.start_mm, tubes.end_mm) + reach) / spacing - 0.5).astype(int)
    last = window.first_slice + len(layer)
    near = (high[:, 0] >= window.first_slice) & (low[:, 0] < last)
    tubes, low, size = tubes.take(near), low[near], (high - low + 1)[near]
    # Sizes are rounded up to a few classes: one batch of equal boxes is one NumPy expression.
    size = np.where(size <= 8, (size + 1) // 2 * 2, (size + 7) // 8 * 8)
    low[:, 0] -= window.first_slice
    classes, group = np.unique(size, axis=0, return_inverse=True)
    for number, box in enumerate(classes):
        rows = np.flatnonzero(group.ravel() == number)
        step = max(1, int(BATCH_VOXELS // np.prod(box)))
        for first in range(0, len(rows), step):
            chosen = rows[first : first + step]
            _draw_equal_boxes(layer, tubes.take(chosen), low[chosen], box, window)


def _draw_equal_boxes(
    layer: np.ndarray, tubes: Tubes, low: np.ndarray, box: np.ndarray, window: GridSlab
) -> None:
    """Draw tubes (n) whose boxes begin at `low` (n, 3) and all have the size `box` (3,)."""
    index = [low[:, a, None] + np.arange(box[a]) for a in range(3)]
    firsts = (window.first_slice, 0, 0)
    offsets = [
        ((index[a] + firsts[a] + 0.5) * window.spacing()[a] - tubes.start_mm[:, a, None])
        for a in range(3)
    ]
    z, y, x = (_along_axis(offsets[a].astype("f4"), a) for a in range(3))
    share = _tube_shares(tubes, z, y, x, window.voxel_mm())
    inside = share > 0
    for a in range(3):
        good = (index[a] >= 0) & (index[a] < layer.shape[a])
        if not good.all():
            inside &= _along_axis(good, a)
    rows = _along_axis(index[0], 0) * layer.shape[1] + _along_axis(index[1], 1)
    flat = rows * layer.shape[2] + _along_axis(index[2], 2)
    np.maximum.at(layer.reshape(-1), flat[inside], share[inside])


def _along_axis(values: np.ndarray, axis: int) -> np.ndarray:
    """Reshape (n, m) to (n, m, 1, 1), (n, 1, m, 1) or (n, 1, 1, m)."""
    shape = [len(values), 1, 1, 1]
    shape[axis + 1] = values.shape[1]
    return values.reshape(shape)


def _column(values: np.ndarray) -> np.ndarray:
    return values.astype("f4")[:, None, None, None]


def _tube_shares(
    tubes: Tubes, z: np.ndarray, y: np.ndarray, x: np.ndarray, voxel_mm: float
) -> np.ndarray:
    """Return each tube's density times its share of the voxels at offsets from its start."""
    axis = tubes.end_mm - tubes.start_mm
    length = np.maximum(np.linalg.norm(axis, axis=1), 1e-6)
    way = axis / length[:, None]
    # Distance from the axis: |w|^2 - 2 t (w.v) + t^2, with t clipped to the tube's length.
    along = _column(way[:, 0]) * z + _column(way[:, 1]) * y
    along = along + _column(way[:, 2]) * x
    squared = (z * z + y * y) + x * x
    t = np.clip(along, 0, _column(length))
    squared += t * (t - 2 * along)
    distance = np.sqrt(np.maximum(squared, 0, out=squared), out=squared)
    taper = (tubes.end_radius_mm - tubes.start_radius_mm) / length
    depth = _column(tubes.start_radius_mm) + _column(taper) * t - distance
    share = covered_fraction(depth, voxel_mm)
    hollow = np.isfinite(tubes.wall_mm)
    if hollow.any():
        share -= covered_fraction(depth - _column(np.where(hollow, tubes.wall_mm, 1e3)), voxel_mm)
        open_end = covered_fraction(np.minimum(along, _column(length) - along), voxel_mm)
        share *= np.where(hollow[:, None, None, None], open_end, 1)
    share *= _column(tubes.density)
    return share
