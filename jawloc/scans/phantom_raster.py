"""Turns tubes and ellipsoids given in millimetres into anti-aliased voxels, slab by slab.

Every value depends only on the voxel's own position, never on where a slab begins, so a scan
made in slabs of any thickness is the same scan. Nothing here knows about fish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Grid

# Boxes are drawn together in batches of about this many voxels, which fit a core's cache.
BATCH_VOXELS = 60_000
# A tube thinner than this many voxels (radius) is spread over its neighbours instead of drawn.
THIN_RADIUS_VOXELS = 0.5


@dataclass(frozen=True)
class Tubes:
    """Straight tapered tubes with round ends, as columns of one table.

    Attributes
    ----------
    start_mm, end_mm : array, shape (n, 3)
        End points (z, y, x), or any other three axes before they are mapped into the world.
    start_radius_mm, end_radius_mm : array, shape (n,)
    wall_mm : array, shape (n,)
        Thickness of the wall; infinite where the tube is solid. Hollow tubes have flat, open ends.
    density : array, shape (n,)
        What a voxel wholly inside holds.
    label : array of uint8, shape (n,)
        Value in the mask; 0 for whatever is not labelled.
    """

    start_mm: np.ndarray
    end_mm: np.ndarray
    start_radius_mm: np.ndarray
    end_radius_mm: np.ndarray
    wall_mm: np.ndarray
    density: np.ndarray
    label: np.ndarray

    def take(self, rows: np.ndarray) -> Tubes:
        """Return the tubes of some rows (indices or a boolean array)."""
        return Tubes(*(column[rows] for column in self.columns()))

    def columns(self) -> tuple[np.ndarray, ...]:
        """Return the columns in the order of the fields."""
        return (
            self.start_mm,
            self.end_mm,
            self.start_radius_mm,
            self.end_radius_mm,
            self.wall_mm,
            self.density,
            self.label,
        )

    def split(self, longest_mm: np.ndarray) -> Tubes:
        """Cut every tube into equal pieces no longer than `longest_mm` (n,)."""
        length = np.linalg.norm(self.end_mm - self.start_mm, axis=1)
        pieces = np.maximum(np.ceil(length / longest_mm), 1).astype(int)
        row = np.repeat(np.arange(len(pieces)), pieces)
        piece = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        t0, t1 = piece / pieces[row], (piece + 1) / pieces[row]
        whole = self.take(row)
        axis, taper = whole.end_mm - whole.start_mm, whole.end_radius_mm - whole.start_radius_mm
        return Tubes(
            whole.start_mm + t0[:, None] * axis,
            whole.start_mm + t1[:, None] * axis,
            whole.start_radius_mm + t0 * taper,
            whole.start_radius_mm + t1 * taper,
            whole.wall_mm,
            whole.density,
            whole.label,
        )

    def centroid_mm(self) -> np.ndarray:
        """Return the centroid (3,) of all tubes, each weighted by its volume."""
        length = np.linalg.norm(self.end_mm - self.start_mm, axis=1)
        weight = length * (self.start_radius_mm + self.end_radius_mm) ** 2
        return (weight[:, None] * (self.start_mm + self.end_mm) / 2).sum(0) / weight.sum()


@dataclass(frozen=True)
class Ellipsoid:
    """A solid or hollow ellipsoid.

    Attributes
    ----------
    centre_mm : array, shape (3,)
    to_unit_ball : array, shape (3, 3)
        Takes an offset from the centre, in mm, into the unit ball.
    level : float
        What a voxel wholly inside it (or inside its wall) is set to.
    wall_mm : float
        Thickness of the wall; infinite where it is solid.
    """

    centre_mm: np.ndarray
    to_unit_ball: np.ndarray
    level: float
    wall_mm: float = np.inf


@dataclass(frozen=True)
class Window:
    """Slices first_slice ... first_slice + n - 1 of a grid, being filled."""

    grid: Grid
    first_slice: int

    def spacing(self) -> np.ndarray:
        """Return the spacing (3,) in mm."""
        return np.asarray(self.grid.spacing_mm_zyx, float)

    def voxel_mm(self) -> float:
        """Return the edge of a cube as large as a voxel."""
        return float(np.prod(self.spacing()) ** (1 / 3))


def coverage(depth_mm: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Return the share of a voxel that lies inside a surface, given its centre's depth below it."""
    return np.clip(depth_mm * np.float32(1 / voxel_mm) + np.float32(0.5), 0, 1)


def walled_coverage(depth_mm: np.ndarray, wall_mm: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Return the share of a voxel inside a wall of given thickness below a surface."""
    return coverage(depth_mm, voxel_mm) - coverage(depth_mm - wall_mm, voxel_mm)


def draw_ellipsoids(image: np.ndarray, ellipsoids: Sequence[Ellipsoid], window: Window) -> None:
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
            coverage(depth, voxel_mm)
            if np.isinf(ellipsoid.wall_mm)
            else walled_coverage(depth, np.float32(ellipsoid.wall_mm), voxel_mm)
        )
        box = image[
            low[0] - window.first_slice : high[0] - window.first_slice,
            low[1] : high[1],
            low[2] : high[2],
        ]
        box += share * (np.float32(ellipsoid.level) - box)


def draw_tubes(layer: np.ndarray, tubes: Tubes, window: Window) -> None:
    """Raise `layer` (slices, y, x) to the density of the tubes where they lie."""
    voxel_mm = window.voxel_mm()
    radius = (tubes.start_radius_mm + tubes.end_radius_mm) / 2
    thin = radius < THIN_RADIUS_VOXELS * voxel_mm
    if thin.any():
        _spread_thin_tubes(layer, tubes.take(thin), window)
    thick = tubes.take(~thin)
    if len(thick.label):
        _draw_thick_tubes(layer, thick.split(10 * voxel_mm + 2 * radius[~thin]), window)


def label_tubes(mask: np.ndarray, tubes: Tubes, window: Window) -> None:
    """Write the tubes' labels into `mask` (uint8), at least about a voxel and a half thick."""
    least = 0.75 * window.voxel_mm()
    for label in np.unique(tubes.label):
        part = tubes.take(tubes.label == label)
        fat = Tubes(
            part.start_mm,
            part.end_mm,
            np.maximum(part.start_radius_mm, least),
            np.maximum(part.end_radius_mm, least),
            part.wall_mm,
            np.ones_like(part.density),
            part.label,
        )
        layer = np.zeros(mask.shape, "f4")
        draw_tubes(layer, fat, window)
        mask[layer > 0.5] = label


def _spread_thin_tubes(layer: np.ndarray, tubes: Tubes, window: Window) -> None:
    """Share the tubes' volume out to the voxels around them (trilinear weights)."""
    spacing, voxel_mm = window.spacing(), window.voxel_mm()
    samples = tubes.split(np.full(len(tubes.label), 0.5 * voxel_mm))
    middle = (samples.start_mm + samples.end_mm) / 2
    place = middle / spacing - 0.5
    base = np.floor(place).astype(int)
    base[:, 0] -= window.first_slice
    near = (base[:, 0] >= -1) & (base[:, 0] < len(layer))
    samples, base, part = samples.take(near), base[near], (place - np.floor(place))[near]
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
    ceiling = tubes.density.max(initial=0)
    np.maximum(layer, np.minimum(total, ceiling).reshape(layer.shape), out=layer, casting="unsafe")


def _draw_thick_tubes(layer: np.ndarray, tubes: Tubes, window: Window) -> None:
    """Draw each tube in the box round it, boxes of like size together."""
    spacing, voxel_mm = window.spacing(), window.voxel_mm()
    reach = (np.maximum(tubes.start_radius_mm, tubes.end_radius_mm) + 0.5 * voxel_mm)[:, None]
    low = np.floor((np.minimum(tubes.start_mm, tubes.end_mm) - reach) / spacing - 0.5).astype(int)
    high = np.ceil((np.maximum(tubes.start_mm, tubes.end_mm) + reach) / spacing - 0.5).astype(int)
    last = window.first_slice + len(layer)
    near = (high[:, 0] >= window.first_slice) & (low[:, 0] < last)
    if not near.any():
        return
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
    layer: np.ndarray, tubes: Tubes, low: np.ndarray, box: np.ndarray, window: Window
) -> None:
    spacing, voxel_mm = window.spacing(), window.voxel_mm()
    index = [low[:, a, None] + np.arange(box[a]) for a in range(3)]
    offset = []
    for a in range(3):
        whole = index[a] + (window.first_slice if a == 0 else 0)
        along = (whole + 0.5) * spacing[a] - tubes.start_mm[:, a, None]
        shape = [len(low), 1, 1, 1]
        shape[a + 1] = int(box[a])
        offset.append(along.astype("f4").reshape(shape))

    def column(values: np.ndarray) -> np.ndarray:
        return values.astype("f4")[:, None, None, None]

    axis = tubes.end_mm - tubes.start_mm
    length = np.maximum(np.linalg.norm(axis, axis=1), 1e-6)
    direction = axis / length[:, None]
    z, y, x = offset
    # Distance from the axis: |w|² - 2·t·(w·v) + t², with t clipped to the tube's length.
    along = column(direction[:, 0]) * z + column(direction[:, 1]) * y
    along = along + column(direction[:, 2]) * x
    squared = (z * z + y * y) + x * x
    t = np.clip(along, 0, column(length))
    squared += t * (t - 2 * along)
    distance = np.sqrt(np.maximum(squared, 0, out=squared), out=squared)
    taper = (tubes.end_radius_mm - tubes.start_radius_mm) / length
    depth = column(tubes.start_radius_mm) + column(taper) * t - distance
    share = coverage(depth, voxel_mm)
    if np.isfinite(tubes.wall_mm).any():
        hollow = np.isfinite(tubes.wall_mm)
        wall = column(np.where(hollow, tubes.wall_mm, 1e3))
        share -= coverage(depth - wall, voxel_mm)
        end = coverage(np.minimum(along, column(length) - along), voxel_mm)
        share *= np.where(hollow[:, None, None, None], end, 1)
    share *= column(tubes.density)
    flat = index[0][:, :, None, None] * layer.shape[1] + index[1][:, None, :, None]
    flat = flat * layer.shape[2] + index[2][:, None, None, :]
    inside = share > 0
    for a in range(3):
        good = (index[a] >= 0) & (index[a] < layer.shape[a])
        if not good.all():
            shape = [len(low), 1, 1, 1]
            shape[a + 1] = int(box[a])
            inside &= good.reshape(shape)
    np.maximum.at(layer.reshape(-1), flat[inside], share[inside])
