"""The anatomy of an adult zebrafish, in millimetres, before it is posed in a tube.

Fish axes are (s, d, l): s from the snout's tip towards the tail, d towards the back, l towards
the fish's left. The bones of the head are tabled in head lengths, the trunk follows the body's
outline. The tables are drawn by eye from the general anatomy of the animal, not from any scan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jawloc.scans.phantom_raster import Tubes

# Where the jaw and the otoliths lie, in head lengths behind the snout's tip; the head's length
# follows from the distance between them, which the table of real scans gives.
JAW_TO_OTOLITH_HEADS = 0.66
VERTEBRAE = 31
LOWER_JAW, UPPER_JAW = 1, 2

# The body's outline, in maximal body depths, at stations u: 0 snout, 1 end of the head, 4 end of
# the body; upper and lower edge and half width.
OUTLINE = np.array(
    [
        # u     upper   lower  half width
        [0.00, -0.005, -0.060, 0.045],
        [0.03, 0.050, -0.110, 0.100],
        [0.10, 0.115, -0.175, 0.165],
        [0.30, 0.215, -0.290, 0.235],
        [0.60, 0.330, -0.390, 0.285],
        [1.00, 0.430, -0.480, 0.310],
        [1.40, 0.475, -0.535, 0.320],
        [1.80, 0.475, -0.520, 0.305],
        [2.20, 0.440, -0.440, 0.260],
        [2.70, 0.340, -0.310, 0.195],
        [3.20, 0.240, -0.225, 0.135],
        [3.60, 0.195, -0.190, 0.090],
        [3.90, 0.200, -0.200, 0.055],
        [4.00, 0.190, -0.190, 0.030],
    ]
)


@dataclass(frozen=True)
class Fish:
    """One fish's measures.

    Attributes
    ----------
    length_mm : float
        From the snout's tip to the end of the backbone (standard length).
    head_mm, depth_mm, width_ratio : float
        Length of the head; greatest depth of the body; width relative to the outline's.
    gape_radians, fin_fold : float
        How far the lower jaw is dropped; 0 for fins spread, 1 for fins folded back.
    shape_seed : int
        Seed of the small differences between bones.
    """

    length_mm: float
    head_mm: float
    depth_mm: float
    width_ratio: float
    gape_radians: float
    fin_fold: float
    shape_seed: int

    def station_mm(self, u: np.ndarray | float) -> np.ndarray:
        """Return s in mm of a station u (see OUTLINE)."""
        u = np.asarray(u, float)
        trunk = (self.length_mm - self.head_mm) / 3
        return np.where(u < 1, u * self.head_mm, self.head_mm + (u - 1) * trunk)

    def outline_mm(self, s_mm: np.ndarray) -> np.ndarray:
        """Return the cross-sections' (centre d, half depth, half width), shape (3, ...)."""
        trunk = (self.length_mm - self.head_mm) / 3
        s = np.asarray(s_mm, float)
        u = np.where(s < self.head_mm, s / self.head_mm, 1 + (s - self.head_mm) / trunk)
        upper, lower, half = (np.interp(u, *_SMOOTH_OUTLINE[[0, k]]) for k in (1, 2, 3))
        half = half * self.width_ratio
        return np.stack([(upper + lower) / 2, (upper - lower) / 2, half]) * self.depth_mm

    def skin_mm(self, s_mm: np.ndarray, angle: np.ndarray, inset: float = 1.0) -> np.ndarray:
        """Return points (..., 3) on the skin; angle 0 is the back's ridge, pi the belly."""
        centre, depth, half = self.outline_mm(s_mm)
        d = centre + inset * depth * np.cos(angle)
        return np.stack(np.broadcast_arrays(s_mm, d, inset * half * np.sin(angle)), -1)

    def column_mm(self, s_mm: np.ndarray) -> np.ndarray:
        """Return the backbone's d at s."""
        share = (self.length_mm - np.asarray(s_mm)) / (self.length_mm - self.head_mm)
        return 0.055 * self.head_mm * np.clip(share, 0, 1.2)


def _smooth_outline() -> np.ndarray:
    """Return OUTLINE's columns on a fine, rounded scale of stations."""
    fine = np.linspace(0, 1, 241) ** 2 * 4
    columns = [np.interp(fine, OUTLINE[:, 0], OUTLINE[:, k]) for k in (1, 2, 3)]
    for _ in range(60):
        for column in columns:
            column[1:-1] = column[1:-1] / 2 + (column[:-2] + column[2:]) / 4
    return np.stack([fine, *columns])


_SMOOTH_OUTLINE = _smooth_outline()


@dataclass(frozen=True)
class Stroke:
    """One bone: a smooth path (k, 3) in mm with a radius at each point."""

    path: np.ndarray
    radius: np.ndarray
    density: float
    wall: float = np.inf
    label: int = 0


# Bones of the left half of the head in head lengths: name, density, radius, path (s, d, l).
# A bone with any l above zero has a mirror image on the right.
Bone = tuple[str, float, float, tuple[tuple[float, float, float], ...]]
JAW_BONES: tuple[Bone, ...] = (
    (
        "dentary",
        0.95,
        0.019,
        (
            (0.36, -0.165, 0.135),
            (0.26, -0.160, 0.125),
            (0.15, -0.140, 0.100),
            (0.065, -0.105, 0.055),
            (0.035, -0.080, 0.000),
        ),
    ),
    ("coronoid", 0.9, 0.015, ((0.28, -0.160, 0.128), (0.235, -0.105, 0.128))),
    (
        "premaxilla",
        0.9,
        0.015,
        ((0.25, -0.085, 0.128), (0.15, -0.050, 0.100), (0.07, -0.020, 0.055), (0.04, -0.005, 0.0)),
    ),
    ("maxilla", 0.9, 0.013, ((0.27, -0.10, 0.138), (0.19, -0.035, 0.112), (0.11, 0.010, 0.06))),
)
HEAD_BONES: tuple[Bone, ...] = (
    ("parasphenoid", 0.9, 0.014, ((0.13, 0.015, 0.0), (0.5, 0.02, 0.0), (1.0, 0.05, 0.0))),
    ("ethmoid", 0.8, 0.022, ((0.13, 0.03, 0.0), (0.2, 0.05, 0.06), (0.25, 0.06, 0.1))),
    ("nasal", 0.8, 0.010, ((0.09, 0.05, 0.04), (0.2, 0.115, 0.05))),
    ("frontal", 0.9, 0.014, ((0.16, 0.10, 0.05), (0.35, 0.175, 0.10), (0.6, 0.245, 0.12))),
    ("sphenotic", 0.9, 0.020, ((0.55, 0.17, 0.17), (0.7, 0.16, 0.20), (0.85, 0.15, 0.17))),
    ("pterotic", 1.0, 0.022, ((0.7, 0.16, 0.20), (0.95, 0.12, 0.16), (1.02, 0.1, 0.1))),
    ("supraoccipital", 1.0, 0.016, ((0.72, 0.28, 0.0), (0.95, 0.27, 0.0), (1.1, 0.30, 0.0))),
    ("basioccipital", 1.05, 0.035, ((0.75, 0.04, 0.0), (1.0, 0.055, 0.0))),
    ("exoccipital", 1.0, 0.02, ((1.0, 0.06, 0.03), (0.98, 0.15, 0.11), (0.97, 0.25, 0.03))),
    ("hyomandibula", 0.95, 0.020, ((0.72, 0.13, 0.20), (0.68, 0.02, 0.21), (0.60, -0.10, 0.19))),
    ("symplectic", 0.85, 0.013, ((0.60, -0.10, 0.19), (0.48, -0.13, 0.165), (0.38, -0.155, 0.14))),
    ("quadrate", 0.9, 0.018, ((0.50, -0.17, 0.165), (0.375, -0.16, 0.137))),
    ("pterygoid", 0.8, 0.012, ((0.40, -0.12, 0.14), (0.30, -0.03, 0.12), (0.2, 0.02, 0.09))),
    (
        "preopercle",
        0.95,
        0.016,
        ((0.70, 0.12, 0.235), (0.685, -0.08, 0.24), (0.60, -0.2, 0.21), (0.42, -0.2, 0.165)),
    ),
    (
        "ceratohyal",
        1.0,
        0.022,
        ((0.63, -0.13, 0.175), (0.52, -0.19, 0.12), (0.40, -0.215, 0.06), (0.32, -0.2, 0.02)),
    ),
    ("basihyal", 0.9, 0.018, ((0.22, -0.15, 0.0), (0.34, -0.195, 0.0))),
    ("urohyal", 0.8, 0.012, ((0.36, -0.23, 0.0), (0.62, -0.30, 0.0))),
    ("basibranchial", 0.8, 0.014, ((0.36, -0.185, 0.0), (0.8, -0.17, 0.0))),
    (
        "pharyngeal jaw",
        1.15,
        0.030,
        ((0.80, -0.18, 0.02), (0.88, -0.19, 0.08), (0.93, -0.10, 0.12), (0.96, 0.0, 0.10)),
    ),
    (
        "cleithrum",
        1.05,
        0.026,
        (
            (1.00, 0.16, 0.225),
            (1.05, 0.02, 0.27),
            (1.06, -0.14, 0.265),
            (1.00, -0.30, 0.19),
            (0.88, -0.40, 0.07),
            (0.80, -0.41, 0.012),
        ),
    ),
    ("coracoid", 0.85, 0.016, ((1.08, -0.22, 0.24), (1.02, -0.33, 0.12), (0.95, -0.38, 0.03))),
    ("scapula", 0.9, 0.022, ((1.07, -0.12, 0.255), (1.13, -0.17, 0.26))),
)
TEETH = ((0.86, -0.13, 0.05), (0.885, -0.12, 0.065), (0.91, -0.105, 0.078), (0.93, -0.08, 0.085))


def rounded(path: np.ndarray, times: int = 2) -> np.ndarray:
    """Cut the corners of a path (k, c) off, keeping its ends (Chaikin)."""
    for _ in range(times if len(path) > 2 else 0):
        quarter = 0.75 * path[:-1] + 0.25 * path[1:]
        three = 0.25 * path[:-1] + 0.75 * path[1:]
        path = np.concatenate(
            [path[:1], np.stack([quarter, three], 1).reshape(-1, path.shape[1])[1:-1], path[-1:]]
        )
    return path


def skeleton(fish: Fish, arch_labels: bool = False) -> Tubes:
    """Return every bone of a fish as tubes in fish axes, in mm; the jaw's carry labels."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([fish.shape_seed, 1])))
    strokes = [
        *_jaw(fish, rng, arch_labels),
        *_head(fish, rng),
        *_backbone(fish, rng),
        *_fins(fish, rng),
    ]
    starts = [s.path[:-1] for s in strokes]
    ends = [s.path[1:] for s in strokes]
    counts = [len(s) for s in starts]
    return Tubes(
        np.concatenate(starts),
        np.concatenate(ends),
        np.concatenate([s.radius[:-1] for s in strokes]),
        np.concatenate([s.radius[1:] for s in strokes]),
        np.repeat([s.wall for s in strokes], counts),
        np.repeat([s.density for s in strokes], counts),
        np.repeat(np.array([s.label for s in strokes], np.uint8), counts),
    )


def _bones(
    bones: tuple[Bone, ...], head_mm: float, rng: np.random.Generator
) -> Iterator[tuple[str, Stroke]]:
    stretch = 1 + np.array([0.0, 0.05, 0.05]) * rng.standard_normal(3).clip(-2, 2)
    for name, density, radius, path in bones:
        points = np.asarray(path) * stretch
        # Bones differ a little between fish, but the midline stays in the middle.
        points = points + 0.004 * rng.standard_normal(points.shape) * (points[:, 2:] > 0.015)
        points = rounded(points) * head_mm
        thickness = (
            radius
            * head_mm
            * np.interp(
                np.linspace(0, 1, len(points)), [0, 0.15, 0.5, 0.85, 1], [0.9, 1, 1.05, 0.95, 0.75]
            )
        )
        yield name, Stroke(points, thickness, density)
        if points[:, 2].max() > 0:
            yield name, Stroke(points * (1, 1, -1), thickness, density)


def _jaw(fish: Fish, rng: np.random.Generator, arch_labels: bool) -> Iterator[Stroke]:
    hinge = np.array([0.36, -0.165]) * fish.head_mm
    cos, sin = np.cos(fish.gape_radians), np.sin(fish.gape_radians)
    for name, bone in _bones(JAW_BONES, fish.head_mm, rng):
        lower = name in ("dentary", "coronoid")
        path = bone.path.copy()
        if lower:
            s, d = (path[:, :2] - hinge).T
            path[:, 0], path[:, 1] = hinge[0] + cos * s - sin * d, hinge[1] + sin * s + cos * d
        label = LOWER_JAW if lower or not arch_labels else UPPER_JAW
        yield Stroke(path, bone.radius, bone.density, label=label)


def _head(fish: Fish, rng: np.random.Generator) -> Iterator[Stroke]:
    h = fish.head_mm
    for _, bone in _bones(HEAD_BONES, h, rng):
        yield bone
    for side in (1, -1):
        flip = np.array([1, 1, side])
        for k in range(4):  # gill arches, each like a jaw arch
            path = np.array(
                [
                    [0.42 + 0.085 * k, -0.185, 0.015],
                    [0.50 + 0.085 * k, -0.20, 0.09],
                    [0.60 + 0.08 * k, -0.12, 0.15],
                    [0.62 + 0.075 * k, -0.02, 0.14],
                    [0.60 + 0.07 * k, 0.02, 0.07],
                ]
            )
            path = rounded(path) * h * flip
            yield Stroke(path, np.full(len(path), 0.012 * h), 0.85)
        for tooth in TEETH:
            root = np.array(tooth) * h * flip
            tip = root + np.array([-0.01, 0.05, -0.02 * side]) * h
            yield Stroke(np.stack([root, tip]), np.array([0.020, 0.008]) * h, 1.6)
        angle = np.linspace(0, 2 * np.pi, 13)  # the ring of small bones round the eye
        ring = np.stack(
            [0.37 + 0.165 * np.cos(angle), 0.055 + 0.145 * np.sin(angle), 0.235 + 0 * angle], 1
        )
        ring[:, 2] -= 0.05 * np.abs(np.cos(angle)) + 0.02
        yield Stroke(ring * h * flip, np.full(13, 0.007 * h), 0.8)
        yield from _gill_cover(fish, side)


def _gill_cover(fish: Fish, side: int) -> Iterator[Stroke]:
    """Yield the opercle, a plate made of a fan of struts, and the rays below it."""
    h = fish.head_mm
    hinge = fish.skin_mm(np.array(0.74 * h), np.array(0.33 * np.pi), 0.93)
    for angle in np.linspace(0.34, 0.74, 16) * np.pi:
        far = (0.99 + 0.05 * np.sin(angle)) - 0.11 * (angle / np.pi - 0.34) / 0.4
        s = np.linspace(0.745 * h, far * h, 5)
        way = np.linspace(0, 1, 5)
        skin = fish.skin_mm(s, 0.33 * np.pi + (angle - 0.33 * np.pi) * way, 0.95)
        skin[0] = hinge
        yield Stroke(skin * (1, 1, side), np.full(5, 0.011 * h), 0.75)
    for k in range(3):
        s = np.linspace(0.50 + 0.05 * k, 0.88 + 0.03 * k, 5) * h
        path = fish.skin_mm(s, np.linspace(0.84 - 0.03 * k, 0.80 - 0.06 * k, 5) * np.pi, 0.9)
        yield Stroke(path * (1, 1, side), np.full(5, 0.009 * h), 0.75)


def _backbone(fish: Fish, rng: np.random.Generator) -> Iterator[Stroke]:
    first, last = 1.02 * fish.head_mm, 0.985 * fish.length_mm
    edges = np.linspace(first, last, VERTEBRAE + 1)
    pitch = edges[1] - edges[0]
    edge_d = fish.column_mm(edges)
    for k in range(VERTEBRAE):
        taper = 1 - 0.45 * max(0, k - 14) / (VERTEBRAE - 15)
        radius = 0.36 * pitch * taper * (1.15 if k < 4 else 1)
        a = np.array([edges[k] + 0.06 * pitch, edge_d[k], 0])
        b = np.array([edges[k + 1] - 0.06 * pitch, edge_d[k + 1], 0])
        yield Stroke(
            np.stack([a, (a + b) / 2, b]), radius * np.array([1, 0.55, 1]), 1.1, wall=0.09 * pitch
        )
        middle = (a + b) / 2
        centre, half_depth, _ = fish.outline_mm(middle[0])
        yield from _arch(middle, radius, pitch, 0.72 * (centre + half_depth), rng)
        if k >= 14:
            yield from _arch(middle, radius, pitch, 0.72 * (centre - half_depth), rng)
        elif k >= 4:
            yield from _ribs(fish, middle, radius, k)
        else:
            for side in (1, -1):  # the first four carry the bones of hearing
                tip = middle + np.array([0.3, -0.35, side * 1.1]) * pitch
                yield Stroke(
                    np.stack([middle + (0, 0, side * radius), tip]),
                    np.array([0.13, 0.06]) * pitch,
                    1.0,
                )


def _arch(
    middle: np.ndarray, radius: float, pitch: float, tip_d: float, rng: np.random.Generator
) -> Iterator[Stroke]:
    """Yield an arch over (or under) a vertebra and the spine on it."""
    up = np.sign(tip_d - middle[1])
    top = middle + np.array([0.25 * pitch, up * (radius + 0.5 * pitch), 0])
    for side in (1, -1):
        foot = middle + np.array([-0.1 * pitch, up * 0.8 * radius, side * 0.6 * radius])
        yield Stroke(np.stack([foot, top]), np.array([0.07, 0.06]) * pitch, 0.95)
    slant = 0.75 * abs(tip_d - top[1]) * rng.uniform(0.9, 1.1)
    tip = np.array([top[0] + slant, tip_d, 0])
    yield Stroke(np.stack([top, tip]), np.array([0.07, 0.035]) * pitch, 0.95)


def _ribs(fish: Fish, middle: np.ndarray, radius: float, k: int) -> Iterator[Stroke]:
    low = (0.82, 0.86, 0.87, 0.87, 0.86, 0.84, 0.81, 0.77, 0.72, 0.66)[k - 4]
    s = middle[0] + np.linspace(0.1, 0.55, 6) * 0.09 * fish.length_mm
    path = fish.skin_mm(s, np.linspace(0.47, low, 6) * np.pi, 0.86)
    for side in (1, -1):
        rib = path * (1, 1, side)
        rib = np.concatenate([[middle + (0, -0.3 * radius, side * 0.8 * radius)], rib])
        yield Stroke(rounded(rib, 1), np.linspace(1.0, 0.5, 12) * 0.0042 * fish.head_mm * 2, 0.9)


def _fins(fish: Fish, rng: np.random.Generator) -> Iterator[Stroke]:
    size = fish.length_mm
    back = 0.6 + 0.7 * fish.fin_fold
    yield from _median_fin(fish, (0.575, 0.70), 9, (0.155, 0.075), 1, back, rng)
    yield from _median_fin(fish, (0.655, 0.80), 13, (0.13, 0.055), -1, back, rng)
    base_d = fish.column_mm(np.array(size))
    count = 19
    for k in range(count):  # tail fin, forked
        v = 2 * k / (count - 1) - 1
        root = np.array([size * (0.985 + 0.015 * (1 - abs(v))), base_d + 0.045 * size * v, 0])
        plate = np.array([size * 0.965, base_d + 0.008 * size * v, 0])
        yield Stroke(np.stack([plate, root]), np.array([0.003, 0.0045]) * size, 0.9)
        reach = size * (0.13 + 0.10 * abs(v) ** 1.3)
        spread = v * (0.62 - 0.25 * fish.fin_fold)
        yield from _ray(root, np.array([np.cos(spread), np.sin(spread), 0]), reach, size, rng)
    for side in (1, -1):  # paired fins
        for k in range(9):
            root = np.array([1.13, -0.16 - 0.012 * k, side * 0.27]) * fish.head_mm
            way = np.array([1.0, -0.1 - 0.07 * k, side * (0.25 - 0.1 * fish.fin_fold)])
            yield from _ray(root, way, (0.135 - 0.008 * k) * size, size, rng)
        for k in range(7):
            root = fish.skin_mm(np.array(0.47 * size), np.array(0.9 * np.pi)) * (1, 1, side)
            root = root + np.array([0.004 * k * size, 0, 0])
            way = np.array([1.0, -0.30 + 0.02 * k, side * 0.03 * k])
            yield from _ray(root, way, (0.11 - 0.006 * k) * size, size, rng)
        girdle = fish.skin_mm(np.array([0.41, 0.47]) * size, np.array([0.97, 0.9]) * np.pi, 0.93)
        yield Stroke(girdle * (1, 1, side), np.array([0.003, 0.005]) * size, 0.9)


def _median_fin(
    fish: Fish,
    span: tuple[float, float],
    count: int,
    lengths: tuple[float, float],
    up: int,
    back: float,
    rng: np.random.Generator,
) -> Iterator[Stroke]:
    """Yield a fin of the back (up = 1) or the belly (-1) with the bones that carry it."""
    size = fish.length_mm
    for share in np.linspace(0, 1, count):
        s = size * (span[0] + share * (span[1] - span[0]))
        centre, half, _ = fish.outline_mm(np.array(s))
        root = np.array([s, centre + up * half, 0])
        inner = np.array([s - 0.02 * size, centre + up * 0.55 * half, 0])
        yield Stroke(np.stack([inner, root]), np.array([0.0018, 0.003]) * size, 0.9)
        lean = back * (0.75 + 0.5 * share)
        way = np.array([np.sin(lean), up * np.cos(lean), 0])
        reach = size * (lengths[0] + (lengths[1] - lengths[0]) * share**0.8)
        yield from _ray(root, way, reach * (0.72 if share == 0 else 1), size, rng)


def _ray(
    root: np.ndarray, way: np.ndarray, reach: float, size: float, rng: np.random.Generator
) -> Iterator[Stroke]:
    """Yield a fin ray that forks, and the thin skin beside it."""
    way = way / np.linalg.norm(way)
    across = np.array([-way[1], way[0], 0]) * 0.045
    sway = np.array([0, 0, rng.normal(0, 0.03)])
    knot = root + 0.5 * reach * way
    thick = 0.0021 * size
    yield Stroke(np.stack([root, knot]), np.array([1.3, 0.9]) * thick, 0.85)
    for fork in (1, -1):
        tip = root + reach * (way + fork * across + sway)
        yield Stroke(np.stack([knot, tip]), np.array([0.7, 0.4]) * thick, 0.7)
    yield Stroke(np.stack([root, root + 0.96 * reach * way]), np.array([3.5, 5.0]) * thick, 0.07)
