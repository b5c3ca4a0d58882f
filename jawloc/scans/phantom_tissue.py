"""Everything of a phantom that is not bone: flesh, organs, tube, and the scanner's own marks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Grid
from jawloc.scans.phantom_anatomy import VERTEBRAE, Fish
from jawloc.scans.phantom_raster import Ellipsoid, Window, coverage

OTOLITHS_HEADS = (0.84, 0.13)  # (s, d) of the middle of the otoliths, in head lengths


@dataclass(frozen=True)
class Pose:
    """Where the fish stands: head up, its axis bent a little round the tube's.

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

    def axis_mm(self, s_mm: np.ndarray) -> np.ndarray:
        """Return the body's axis (..., 2) as (y, x) from the tube's axis."""
        return path_terms(s_mm, self.bend_mm) @ self.path_mm

    def to_world(self, points_mm: np.ndarray) -> np.ndarray:
        """Take points (..., 3) from fish axes to (z, y, x) from the floor and the tube's axis."""
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
class Look:
    """Grey levels of one scan; flesh is 1 and air 0 before gain and offset.

    Attributes
    ----------
    medium, plastic : float
        Level of what fills the tube, and of its wall.
    bone_contrast : float
        How far bone of density 1 stands above what is round it.
    texture, noise, rings, shading : float
        Strength of the flesh's mottling, of the noise (one voxel's), of the rings, of the
        brightening from the tube's axis outwards.
    gain, offset : float
        Grey value = offset + gain x level.
    tube_radius_mm : float
    """

    medium: float
    plastic: float
    bone_contrast: float
    texture: float
    noise: float
    rings: float
    shading: float
    gain: float
    offset: float
    tube_radius_mm: float


def organs(fish: Fish, pose: Pose, look: Look) -> list[Ellipsoid]:
    """Return the soft organs, in painting order, posed in the world."""
    h, size, deep = fish.head_mm, fish.length_mm, fish.depth_mm
    wide = deep * fish.width_ratio
    fluid = 0.55 * look.medium + 0.4
    rows: list[
        tuple[tuple[float, float, float], tuple[float, float, float], float, float, float]
    ] = []

    def add(centre, radii, level, wall=np.inf, pitch=0.0, both=False):  # type: ignore
        for side in (1, -1) if both else (1,):
            rows.append(((centre[0], centre[1], side * centre[2]), radii, level, wall, pitch))

    add((0.18 * h, -0.075 * h, 0), (0.15 * h, 0.028 * h, 0.07 * h), look.medium)  # mouth
    add((0.66 * h, -0.09 * h, 0.12 * h), (0.28 * h, 0.12 * h, 0.09 * h), fluid, both=True)  # gills
    add((0.37 * h, 0.055 * h, 0.175 * h), (0.150 * h, 0.135 * h, 0.080 * h), 1.35, both=True)
    add((0.37 * h, 0.055 * h, 0.177 * h), (0.138 * h, 0.123 * h, 0.070 * h), 0.80, both=True)
    add((0.37 * h, 0.055 * h, 0.195 * h), (0.055 * h, 0.055 * h, 0.052 * h), 1.55, both=True)
    add((0.62 * h, 0.165 * h, 0), (0.36 * h, 0.115 * h, 0.15 * h), fluid)  # braincase
    add((0.44 * h, 0.150 * h, 0.035 * h), (0.15 * h, 0.055 * h, 0.045 * h), 0.98, both=True)
    add((0.60 * h, 0.185 * h, 0.050 * h), (0.12 * h, 0.075 * h, 0.060 * h), 1.02, both=True)
    add((0.80 * h, 0.170 * h, 0), (0.13 * h, 0.070 * h, 0.075 * h), 1.0)
    belly = 0.02 * deep
    add((0.45 * size, -0.22 * deep, 0), (0.225 * size, 0.27 * deep, 0.25 * wide), 0.88)
    add((0.315 * size, -0.32 * deep, 0), (0.065 * size, 0.14 * deep, 0.19 * wide), 1.10)  # liver
    add((0.235 * size, -0.33 * deep, 0), (0.022 * size, 0.06 * deep, 0.08 * wide), 1.15)  # heart
    for k in range(4):  # gut
        add(
            (
                (0.36 + 0.075 * k) * size,
                -0.36 * deep + 0.04 * deep * (k % 2),
                (k % 2 - 0.5) * 0.16 * wide,
            ),
            (0.062 * size, 0.062 * deep, 0.075 * wide),
            1.05 + 0.1 * (k % 2),
        )
    bladder = -0.10 * deep + belly
    add((0.330 * size, bladder, 0), (0.062 * size, 0.125 * deep, 0.155 * wide), 1.25, pitch=-0.10)
    add((0.330 * size, bladder, 0), (0.057 * size, 0.110 * deep, 0.140 * wide), 0.0, pitch=-0.10)
    add(
        (0.495 * size, bladder - 0.02 * deep, 0),
        (0.112 * size, 0.115 * deep, 0.135 * wide),
        1.25,
        pitch=0.05,
    )
    add(
        (0.495 * size, bladder - 0.02 * deep, 0),
        (0.106 * size, 0.100 * deep, 0.120 * wide),
        0.0,
        pitch=0.05,
    )
    return [_posed(pose, *row) for row in rows]


def dense_ellipsoids(fish: Fish, pose: Pose, look: Look) -> list[Ellipsoid]:
    """Return skull roof and otoliths, posed in the world."""
    h = fish.head_mm
    bone = 1 + look.bone_contrast
    s, d = OTOLITHS_HEADS
    out = [
        _posed(
            pose,
            (0.64 * h, 0.165 * h, 0),
            (0.38 * h, 0.135 * h, 0.175 * h),
            0.85 * bone,
            0.012 * h,
            0.0,
        )
    ]
    for side in (1, -1):
        rows = (
            ((s + 0.02, d - 0.03, 0.075 * side), (0.048, 0.040, 0.020), 1.45),
            ((s - 0.05, d + 0.03, 0.115 * side), (0.040, 0.026, 0.022), 1.4),
            ((s + 0.05, d + 0.015, 0.06 * side), (0.030, 0.012, 0.014), 1.3),
        )
        for centre, radii, density in rows:
            c = (centre[0] * h, centre[1] * h, centre[2] * h)
            r = (radii[0] * h, radii[1] * h, radii[2] * h)
            out.append(_posed(pose, c, r, 1 + density * look.bone_contrast, np.inf, 0.0))
    return out


def _posed(pose: Pose, centre, radii, level, wall, pitch) -> Ellipsoid:  # type: ignore
    cos, sin = np.cos(pitch), np.sin(pitch)
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    to_ball = (turn @ pose.fish_from_world(centre[0])) / np.asarray(radii)[:, None]
    return Ellipsoid(pose.to_world(np.asarray(centre, float)), to_ball, level, wall)


@dataclass(frozen=True)
class Mottle:
    """A smooth random field over the whole field of view, drawn once, coarse, in mm."""

    values: np.ndarray
    pitch_mm: float

    @classmethod
    def draw(
        cls, rng: np.random.Generator, extent_mm: np.ndarray, pitch_mm: float = 0.35
    ) -> Mottle:
        """Draw a field that covers `extent_mm` (3,)."""
        shape = np.ceil(extent_mm / pitch_mm).astype(int) + 2
        return cls(rng.standard_normal(shape, dtype=np.float32), pitch_mm)

    def plane(self, z_mm: float, y_mm: np.ndarray, x_mm: np.ndarray) -> np.ndarray:
        """Return the field on one slice, shape (y, x), at positions from the corner."""
        place = z_mm / self.pitch_mm
        k = int(place)
        part = np.float32(place - k)
        coarse = self.values[k] * (1 - part) + self.values[k + 1] * part
        return _linear_weights(y_mm / self.pitch_mm, coarse.shape[0]) @ (
            coarse @ _linear_weights(x_mm / self.pitch_mm, coarse.shape[1]).T
        )


def _linear_weights(place: np.ndarray, count: int) -> np.ndarray:
    """Return the matrix (n, count) that interpolates linearly at `place` (n,)."""
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(count))).astype("f4")


def draw_flesh(
    image: np.ndarray, fish: Fish, pose: Pose, look: Look, mottle: Mottle, window: Window
) -> None:
    """Paint skin and muscle into `image` (slices, y, x), one slice after the other."""
    hz, hy, hx = window.spacing()
    voxel_mm = float(np.sqrt(hy * hx))
    ny, nx = image.shape[1:]
    back, left = pose.axes()
    for k in range(len(image)):
        z = (window.first_slice + k + 0.5) * hz
        s = pose.snout_z_mm - z
        if not -0.5 * hz < s < 1.01 * fish.length_mm:
            continue
        centre, half_d, half_l = fish.outline_mm(np.array(max(s, 0.0)))
        middle = pose.axis_mm(np.array(s)) + back * centre
        reach = np.sqrt((half_d * back) ** 2 + (half_l * left) ** 2) + voxel_mm
        low_y, low_x = np.maximum(np.floor((middle - reach) / (hy, hx) + (ny / 2, nx / 2)), 0)
        high_y, high_x = np.ceil((middle + reach) / (hy, hx) + (ny / 2, nx / 2)) + 1
        rows, columns = (
            slice(int(low_y), max(int(high_y), 0)),
            slice(int(low_x), max(int(high_x), 0)),
        )
        box = image[k, rows, columns]
        if not box.size:
            continue
        y = (np.arange(ny)[rows] + 0.5) * hy
        x = (np.arange(nx)[columns] + 0.5) * hx
        yc = (y - ny * hy / 2 - middle[0]).astype("f4")[:, None]
        xc = (x - nx * hx / 2 - middle[1]).astype("f4")[None, :]
        d = np.float32(back[0]) * yc + np.float32(back[1]) * xc
        side = np.float32(left[0]) * yc + np.float32(left[1]) * xc
        a, b = d * np.float32(half_d**-2), side * np.float32(half_l**-2)
        slope = 2 * np.sqrt(a * a + b * b) + np.float32(1e-6)
        depth = (1 - (d * a + side * b)) / slope
        share = coverage(depth, voxel_mm)
        flesh = 1 + np.float32(look.texture) * mottle.plane(z, y, x)
        flesh -= _septa(fish, s, d + np.float32(centre), side, voxel_mm)
        flesh += _skin(fish, s, depth, d / np.float32(half_d), voxel_mm) * np.float32(
            look.bone_contrast
        )
        box += share * (flesh - box)


def _septa(
    fish: Fish, s: float, d: np.ndarray, side: np.ndarray, voxel_mm: float
) -> np.ndarray | float:
    """Return how much darker the sheets between the muscle segments are."""
    pitch = (fish.length_mm - fish.head_mm) / VERTEBRAE
    strength = 0.22 * min(max(1.4 - 2 * voxel_mm / pitch, 0), 1)
    if s < 1.05 * fish.head_mm or strength == 0:
        return 0.0
    above = d - np.float32(fish.column_mm(np.array(s)))
    fold = np.abs(np.abs(above) - np.float32(0.17 * fish.depth_mm))  # the W of the segments
    phase = np.float32(s / pitch) + fold * np.float32(0.75 / pitch)
    phase = np.abs(phase - np.floor(phase) - np.float32(0.5))
    sheet = np.clip(1 - phase * np.float32(7), 0, 1)
    level = np.clip(1 - np.abs(above) * np.float32(1 / (0.25 * pitch)), 0, 1)
    return np.float32(strength) * np.maximum(sheet, level)


def _skin(fish: Fish, s: float, depth: np.ndarray, up: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Return the density of the skin with its scales, a thin layer below the surface."""
    thickness = 0.004 * fish.depth_mm + 0.02
    wall = coverage(depth + np.float32(voxel_mm / 2), voxel_mm) - coverage(
        depth - np.float32(thickness - voxel_mm / 2), voxel_mm
    )
    if s < fish.head_mm:
        return np.float32(0.10) * wall
    pitch = 0.032 * fish.length_mm
    row = np.arccos(np.clip(up, -1, 1)) * np.float32(14 / np.pi)
    phase = np.float32(s / pitch) + np.abs(row - np.floor(row) - np.float32(0.5))
    return wall * (np.float32(0.16) + np.float32(0.22) * (phase - np.floor(phase)))


def tube_plane(look: Look, grid: Grid) -> np.ndarray:
    """Return one slice (y, x) of the empty tube."""
    spacing = np.asarray(grid.spacing_mm_zyx, float)
    voxel_mm = float(np.sqrt(spacing[1] * spacing[2]))
    radius = _radius_mm(grid)
    inside = coverage(look.tube_radius_mm - radius, voxel_mm)
    cavity = coverage(0.93 * look.tube_radius_mm - radius, voxel_mm)
    return inside * look.plastic + cavity * np.float32(look.medium - look.plastic)


def scanner_planes(look: Look, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Return the rings and shading (stretch, y, x) of the stretches that the scan is joined from."""
    radius = _radius_mm(grid)
    fine_mm = 0.02
    count = int(radius.max() / fine_mm) + 3
    spacing = np.asarray(grid.spacing_mm_zyx, float)
    blur = max(1, round(float(spacing[1]) / fine_mm))
    planes = []
    for _ in range(SCAN_STRETCHES):
        profile = 0.35 * rng.standard_normal(count)
        strong = rng.random(count) < 0.02
        profile += 2.2 * rng.standard_normal(count) * strong
        profile /= np.sqrt(1 + np.arange(count) * fine_mm / 1.5)
        profile = np.convolve(profile, np.ones(blur) / blur, "same") * np.sqrt(blur)
        plane = look.rings * np.interp(radius / fine_mm, np.arange(count), profile)
        plane += look.shading * ((radius / look.tube_radius_mm) ** 2 - 0.5)
        planes.append(plane + 0.03 * rng.standard_normal())
    return np.stack(planes).astype("f4")


SCAN_STRETCHES = 3


def _radius_mm(grid: Grid) -> np.ndarray:
    spacing = np.asarray(grid.spacing_mm_zyx, float)
    y, x = (
        (np.arange(grid.shape_zyx[a]) + 0.5 - grid.shape_zyx[a] / 2) * spacing[a] for a in (1, 2)
    )
    return np.hypot(y[:, None], x[None, :]).astype("f4")


def scanned(
    levels: np.ndarray, planes: np.ndarray, look: Look, window: Window, seed: int
) -> Iterator[np.ndarray]:
    """Yield the slices of `levels` (slices, y, x) as the scanner would store them, uint16."""
    height = window.grid.shape_zyx[0]
    for k, plane in enumerate(levels):
        z = window.first_slice + k
        seeds = np.random.SeedSequence([seed, 3, z])
        rng = np.random.Generator(np.random.PCG64(seeds))
        noise = rng.standard_normal(plane.shape, dtype=np.float32)
        # Neighbouring voxels of a reconstruction share projections: a light blur, then rescaled.
        noise[1:] += np.float32(0.4) * noise[:-1]
        noise[:, 1:] += np.float32(0.4) * noise[:, :-1]
        noise *= np.float32(look.noise / 1.16)
        noise += plane
        noise += planes[z * len(planes) // height]
        noise *= np.float32(look.gain)
        noise += np.float32(look.offset + 0.5)
        yield np.clip(noise, 0, 65535, out=noise).astype(np.uint16)
