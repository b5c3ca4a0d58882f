"""The soft tissue of a phantom, and the pose of its fish."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from jawloc.phantom.anatomy import OTOLITHS_HEADS, VERTEBRAE, Fish
from jawloc.phantom.raster import GridSlab, covered_fraction
from jawloc.phantom.scanner import GreyLevels
from jawloc.phantom.shapes import Ellipsoid

SKULL_PITCH = 0.08  # radians by which the braincase rises towards the back
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Pose:
    """Position of the fish: head up, its axis slightly bent around the tube's.

    Attributes
    ----------
    snout_z_mm : float
        Height of the snout's tip above the field of view's floor.
    path_mm : array, shape (3, 2)
        The body's axis (y, x) from the tube's, as the weights of 1, s and exp(-s / bend_mm).
    bend_mm : float
    dorsal_radians : float
        Direction of the back, counted from +y towards +x.
    """

    snout_z_mm: float
    path_mm: np.ndarray
    bend_mm: float
    dorsal_radians: float

    def axes(self) -> np.ndarray:
        """Return the unit vectors (y, x) towards the back and the left, shape (2, 2)."""
        cos, sin = np.cos(self.dorsal_radians), np.sin(self.dorsal_radians)
        return np.array([[cos, sin], [-sin, cos]])

    def axis_mm(self, s_mm: np.ndarray | float) -> np.ndarray:
        """Return the body's axis (..., 2) as (y, x) from the tube's axis."""
        return path_terms(s_mm, self.bend_mm) @ self.path_mm

    def to_world(self, points_mm: np.ndarray) -> np.ndarray:
        """Map points (..., 3) from fish axes to (z, y, x) from the floor and the tube's axis."""
        yx = self.axis_mm(points_mm[..., 0]) + points_mm[..., 1:] @ self.axes()
        return np.concatenate([self.snout_z_mm - points_mm[..., :1], yx], -1)

    def fish_from_world(self, s_mm: float) -> np.ndarray:
        """Return the linear map (3, 3) from world offsets to fish offsets near s."""
        back, left = self.axes()
        slope = np.array([0, 1, -np.exp(-s_mm / self.bend_mm) / self.bend_mm]) @ self.path_mm
        return np.array([[-1, 0, 0], [back @ slope, *back], [left @ slope, *left]])


def path_terms(s_mm: np.ndarray | float, bend_mm: float) -> np.ndarray:
    """Return the terms (..., 3) whose weighted sum is the body's axis at s."""
    s = np.asarray(s_mm, float)
    return np.stack([np.ones_like(s), s, np.exp(-s / bend_mm)], -1)


@dataclass(frozen=True)
class Organ:
    """An ellipsoid in fish axes: centre and radii in mm, wall in mm, pitch in radians."""

    centre: Vector
    radii: Vector
    level: float
    wall: float = np.inf
    pitch: float = 0.0

    def posed(self, pose: Pose, corner_mm: np.ndarray) -> Ellipsoid:
        """Return it in the world, in mm from the field of view's corner."""
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        to_ball = (turn @ pose.fish_from_world(self.centre[0])) / np.array(self.radii)[:, None]
        centre = pose.to_world(np.array(self.centre)) + corner_mm
        return Ellipsoid(centre, to_ball, self.level, self.wall)


def _scaled(
    unit: Vector, rows: Iterable[tuple[Vector, Vector, float]], pitch: float = 0.0
) -> list[Organ]:
    """Return organs from rows (centre, radii, level) in units; l > 0 means one on each side."""
    organs = []
    for centre, radii, level in rows:
        s, d, side = np.multiply(centre, unit)
        size = tuple(np.multiply(radii, unit))
        organs += [Organ((s, d, side), size, level, pitch=pitch)]
        organs += [Organ((s, d, -side), size, level, pitch=pitch)] if side > 0 else []
    return organs


def soft_organs(fish: Fish, grey_levels: GreyLevels) -> list[Organ]:
    """Return the soft organs in painting order."""
    fluid = 0.55 * grey_levels.medium + 0.4
    head = _scaled(
        (fish.head_mm,) * 3,
        (
            ((0.18, -0.075, 0), (0.15, 0.026, 0.07), grey_levels.medium),  # mouth
            ((0.68, -0.09, 0.12), (0.28, 0.12, 0.09), fluid),  # gill chambers
            ((0.37, 0.045, 0.165), (0.160, 0.140, 0.085), 1.35),  # eyes: coat, inside, lens
            ((0.37, 0.045, 0.167), (0.147, 0.127, 0.074), 0.80),
            ((0.37, 0.045, 0.185), (0.060, 0.060, 0.055), 1.60),
        ),
    )
    # The braincase's fluid, and in it the halves of the forebrain and midbrain, and the hindbrain.
    head += _scaled(
        (fish.head_mm,) * 3,
        (
            ((0.65, 0.160, 0), (0.36, 0.116, 0.160), fluid),
            ((0.46, 0.140, 0.035), (0.14, 0.055, 0.045), 0.98),
            ((0.61, 0.175, 0.050), (0.12, 0.075, 0.060), 1.02),
            ((0.81, 0.175, 0), (0.13, 0.070, 0.075), 1.00),
        ),
        SKULL_PITCH,
    )
    trunk = (fish.length_mm, fish.depth_mm, fish.depth_mm * fish.width_ratio)
    belly = _scaled(
        trunk,
        (
            ((0.45, -0.22, 0), (0.225, 0.26, 0.24), 0.88),  # body cavity
            ((0.315, -0.31, 0), (0.065, 0.14, 0.18), 1.10),  # liver
            ((0.240, -0.32, 0), (0.022, 0.06, 0.08), 1.15),  # heart
            ((0.370, -0.36, 0.05), (0.062, 0.055, 0.06), 1.05),  # gut
            ((0.440, -0.34, 0.00), (0.062, 0.062, 0.07), 1.16),
            ((0.510, -0.34, 0.02), (0.062, 0.055, 0.06), 1.04),
            ((0.575, -0.32, 0.00), (0.050, 0.045, 0.05), 1.12),
        ),
    )
    front = (((0.325, -0.10, 0), (0.060, 0.122, 0.150)), ((0.325, -0.10, 0), (0.055, 0.108, 0.135)))
    rear = (((0.490, -0.11, 0), (0.112, 0.110, 0.130)), ((0.490, -0.11, 0), (0.106, 0.097, 0.117)))
    bladder = [
        organ
        for (wall, gas), pitch in ((front, -0.08), (rear, 0.05))
        for organ in _scaled(trunk, ((*wall, 1.25), (*gas, 0.0)), pitch)
    ]
    return head + belly + bladder


def dense_organs(fish: Fish, grey_levels: GreyLevels) -> list[Organ]:
    """Return the skull's roof and the otoliths, which are denser than any bone but the teeth."""
    h = fish.head_mm
    s, d = OTOLITHS_HEADS
    shell = (0.65 * h, 0.160 * h, 0.0), (0.370 * h, 0.126 * h, 0.172 * h)
    roof = Organ(*shell, 1 + 0.8 * grey_levels.bone_contrast, wall=0.011 * h, pitch=SKULL_PITCH)
    stones = _scaled(
        (h, h, h),
        (
            (
                (s + 0.02, d - 0.03, 0.075),
                (0.048, 0.040, 0.020),
                1 + 1.45 * grey_levels.bone_contrast,
            ),
            (
                (s - 0.05, d + 0.03, 0.115),
                (0.040, 0.026, 0.022),
                1 + 1.40 * grey_levels.bone_contrast,
            ),
            (
                (s + 0.05, d + 0.015, 0.06),
                (0.030, 0.012, 0.014),
                1 + 1.30 * grey_levels.bone_contrast,
            ),
        ),
    )
    return [roof, *stones]


@dataclass(frozen=True)
class Mottle:
    """A smooth random field over the whole field of view, drawn once on a coarse lattice."""

    values: np.ndarray
    pitch_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator, extent_mm: np.ndarray, pitch_mm: float) -> Mottle:
        """Draw a field that covers `extent_mm` (3,)."""
        shape = np.ceil(extent_mm / pitch_mm).astype(int) + 2
        return cls(rng.standard_normal(shape, dtype=np.float32), pitch_mm)

    def plane(self, z_mm: float, y_mm: np.ndarray, x_mm: np.ndarray) -> np.ndarray:
        """Return the field on one slice, shape (y, x), at positions from the corner."""
        place = z_mm / self.pitch_mm
        low = int(place)
        part = np.float32(place - low)
        coarse = self.values[low] * (1 - part) + self.values[low + 1] * part
        rows, columns = (
            np.maximum(0, 1 - np.abs(at[:, None] / self.pitch_mm - np.arange(count)))
            for at, count in zip((y_mm, x_mm), coarse.shape, strict=True)
        )
        return rows.astype("f4") @ (coarse @ columns.astype("f4").T)


def draw_flesh(
    image: np.ndarray,
    fish: Fish,
    pose: Pose,
    grey_levels: GreyLevels,
    mottle: Mottle,
    window: GridSlab,
) -> None:
    """Paint skin and muscle into `image` (slices, y, x), one slice after the other."""
    spacing = window.spacing()
    pixel_mm = float(np.sqrt(spacing[1] * spacing[2]))
    for number, plane in enumerate(image, window.first_slice):
        z = (number + 0.5) * spacing[0]
        s = pose.snout_z_mm - z
        if not -0.5 * spacing[0] < s < 1.01 * fish.length_mm:
            continue
        centre, *half = fish.outline_mm(max(s, 0.0))
        axes = pose.axes()
        middle = pose.axis_mm(s) + centre * axes[0] + spacing[1:] * plane.shape / 2
        reach = np.linalg.norm(np.array(half)[:, None] * axes, axis=0) + pixel_mm
        low = np.maximum(np.floor((middle - reach) / spacing[1:]), 0).astype(int)
        high = np.minimum(np.ceil((middle + reach) / spacing[1:]) + 1, plane.shape).astype(int)
        if np.any(low >= high):
            continue
        y, x = ((np.arange(low[a], high[a]) + 0.5) * spacing[a + 1] for a in (0, 1))
        up, side = (
            (axis[0] * (y - middle[0])).astype("f4")[:, None]
            + (axis[1] * (x - middle[1])).astype("f4")
            for axis in axes
        )
        a, b = up * np.float32(half[0] ** -2), side * np.float32(half[1] ** -2)
        depth = (1 - (up * a + side * b)) / (2 * np.sqrt(a * a + b * b) + np.float32(1e-6))
        flesh = 1 + np.float32(grey_levels.texture) * mottle.plane(z, y, x)
        _darken_septa(flesh, fish, s, up + np.float32(centre), side, pixel_mm)
        scales = _scales(fish, s, depth, up * np.float32(1 / half[0]), pixel_mm)
        flesh += scales * np.float32(grey_levels.bone_contrast)
        box = plane[low[0] : high[0], low[1] : high[1]]
        box += covered_fraction(depth, pixel_mm) * (flesh - box)


def _darken_septa(
    flesh: np.ndarray, fish: Fish, s: float, d: np.ndarray, side: np.ndarray, pixel_mm: float
) -> None:
    """Darken the thin sheets between the W-shaped muscle segments, where voxels can show them."""
    pitch = (fish.length_mm - fish.head_mm) / VERTEBRAE
    strength = 0.22 * min(max(1.4 - 2 * pixel_mm / pitch, 0), 1)
    if s < 1.05 * fish.head_mm or strength == 0:
        return
    above = np.abs(d - np.float32(fish.column_mm(s)))
    fold = np.abs(above - np.float32(0.17 * fish.depth_mm))
    fold += side * side * np.float32(1.6 / fish.depth_mm)
    phase = np.float32(s / pitch) + fold * np.float32(0.75 / pitch)
    phase = np.abs(phase - np.floor(phase) - np.float32(0.5))
    across = np.clip(1 - phase * np.float32(7), 0, 1)
    along = np.clip(1 - above * np.float32(4 / pitch), 0, 1)
    flesh -= np.float32(strength) * np.maximum(across, along)


def _scales(fish: Fish, s: float, depth: np.ndarray, up: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Return the density of skin and scales, a thin layer below the surface."""
    thickness = 0.004 * fish.depth_mm + 0.02
    half = np.float32(pixel_mm / 2)
    wall = covered_fraction(depth + half, pixel_mm) - covered_fraction(
        depth - np.float32(thickness) + half, pixel_mm
    )
    scaled = np.float32(np.clip((s / fish.head_mm - 0.85) / 0.25, 0, 1))
    if scaled == 0:
        return np.float32(0.10) * wall
    pitch = 0.032 * fish.length_mm
    row = np.arccos(np.clip(up, -1, 1)) * np.float32(14 / np.pi)
    phase = np.float32(s / pitch) + np.abs(row - np.floor(row) - np.float32(0.5))
    ridge = np.float32(0.05) + np.float32(0.22) * (phase - np.floor(phase))
    return wall * (np.float32(0.10) + scaled * ridge)
