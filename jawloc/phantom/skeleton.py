"""Builds a zebrafish's skeleton out of tapered tubes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from jawloc.phantom.anatomy import (
    GILL_ARCH,
    GILL_ARCH_STEP,
    HEAD_BONES,
    JAW_BONES,
    TEETH,
    VERTEBRAE,
    Bone,
    Fish,
)
from jawloc.phantom.fins import fins
from jawloc.phantom.shapes import Stroke, Tubes, joined, rounded

LOWER_ARCH, UPPER_ARCH = 1, 2
FIRST_RIB, FIRST_TAIL_VERTEBRA = 4, 14
# How far round the body each pair of ribs reaches, as a share of the way from back to belly.
RIB_ENDS = (0.82, 0.86, 0.87, 0.87, 0.86, 0.84, 0.81, 0.77, 0.72, 0.66)


def skeleton(fish: Fish, arch_labels: bool = False) -> Tubes:
    """Return every bone of a fish as tubes in fish axes, in mm; the jaw's carry labels."""
    rng = _generator(fish, 1)
    return joined(
        [
            *_jaw_strokes(fish, arch_labels),
            *_head(fish, rng),
            *_backbone(fish, rng),
            *fins(fish, rng),
        ]
    )


def jaw(fish: Fish, arch_labels: bool = False) -> Tubes:
    """Return the labelled bones only: both arches as 1, or the lower as 1 and the upper as 2."""
    return joined(list(_jaw_strokes(fish, arch_labels)))


def _generator(fish: Fish, purpose: int) -> np.random.Generator:
    seeds = np.random.SeedSequence([fish.shape_seed, purpose])
    return np.random.Generator(np.random.PCG64(seeds))


def _bones(
    fish: Fish, bones: Iterable[Bone], rng: np.random.Generator
) -> Iterator[tuple[str, Stroke]]:
    """Yield the bones of a table, left and right, slightly different in each fish."""
    stretch = 1 + np.array([0.0, 0.05, 0.05]) * rng.standard_normal(3).clip(-2, 2)
    for name, density, radius, table in bones:
        points = np.asarray(table) * stretch
        # What lies on the midline stays there.
        points = points + 0.004 * rng.standard_normal(points.shape) * (points[:, 2:] > 0.015)
        path = fish.kept_inside(rounded(points) * fish.head_mm)
        profile = np.interp(
            np.linspace(0, 1, len(path)), [0, 0.15, 0.5, 0.85, 1], [0.9, 1, 1.05, 0.95, 0.75]
        )
        bone = Stroke(
            path, radius * fish.head_mm * profile, density * float(rng.uniform(0.92, 1.08))
        )
        yield name, bone
        if path[:, 2].max() > 0:
            yield name, bone.mirrored()


def chin(fish: Fish) -> Tubes:
    """Return the flesh that moves with the lower jaw, as tubes of density 1."""
    (_, left), (_, right) = list(_bones(fish, JAW_BONES[:1], _generator(fish, 0)))
    a, b = (_dropped(fish, bone.path) for bone in (left, right))
    radius = np.linspace(0.062, 0.032, len(a)) * fish.head_mm
    lips = [Stroke(a, radius, 1.0), Stroke(b, radius, 1.0)]
    floor = [Stroke(np.array([a[k], b[k]]), radius[[k, k]], 1.0) for k in range(1, len(a), 2)]
    return joined(lips + floor)


def _dropped(fish: Fish, path: np.ndarray) -> np.ndarray:
    """Turn part of the lower jaw (k, 3) by the gape, round its hinge."""
    hinge = np.array([*JAW_BONES[0][3][0][:2], 0]) * fish.head_mm
    cos, sin = np.cos(fish.gape_radians), np.sin(fish.gape_radians)
    return (path - hinge) @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + hinge


def _jaw_strokes(fish: Fish, arch_labels: bool) -> Iterator[Stroke]:
    for name, bone in _bones(fish, JAW_BONES, _generator(fish, 0)):
        lower = name not in ("premaxilla", "maxilla")
        path = _dropped(fish, bone.path) if lower else bone.path
        label = LOWER_ARCH if lower or not arch_labels else UPPER_ARCH
        yield Stroke(path, bone.radius, bone.density, label=label)


def _head(fish: Fish, rng: np.random.Generator) -> Iterator[Stroke]:
    for _, bone in _bones(fish, HEAD_BONES, rng):
        yield bone
    for bone in (*_gills(fish), *_eye_ring(fish), *_gill_cover(fish)):
        yield bone
        yield bone.mirrored()


def _gills(fish: Fish) -> Iterator[Stroke]:
    """Yield the left gill arches with their filaments, and the teeth behind them."""
    h = fish.head_mm
    for k in range(4):
        path = fish.kept_inside(rounded((GILL_ARCH + k * GILL_ARCH_STEP) * h))
        yield Stroke(path, np.full(len(path), 0.012 * h), 0.85)
        for root in path[2:-2]:
            tip = root + np.array([0.06, -0.01, 0.055]) * h
            yield Stroke(np.array([root, tip]), np.array([0.014, 0.008]) * h, 0.22)
    for tooth in TEETH:
        root = np.array(tooth) * h
        tip = root + np.array([-0.01, 0.05, -0.02]) * h
        yield Stroke(np.array([root, tip]), np.array([0.020, 0.008]) * h, 1.6)


def _eye_ring(fish: Fish) -> Iterator[Stroke]:
    angle = np.linspace(0, 2 * np.pi, 13)
    ring = np.stack(
        [0.37 + 0.17 * np.cos(angle), 0.045 + 0.145 * np.sin(angle), np.full(13, 0.3)], 1
    )
    ring = fish.kept_inside(ring * fish.head_mm, 0.95)
    yield Stroke(ring, np.full(13, 0.007 * fish.head_mm), 0.8)


def _gill_cover(fish: Fish) -> Iterator[Stroke]:
    """Yield the opercle, a plate made of a fan of struts, and the rays below it."""
    h = fish.head_mm
    hinge = 0.33 * np.pi
    way = np.linspace(0, 1, 5)
    for share in np.linspace(0, 1, 24):
        angle = (0.31 + 0.47 * share) * np.pi
        reach = 0.99 + 0.05 * np.sin(np.pi * share) - 0.12 * share**2
        path = fish.skin_mm(
            np.linspace(0.70, reach, 5) * h, hinge + (angle - hinge) * way**0.7, 0.96
        )
        yield Stroke(path, np.full(5, 0.011 * h), 0.75)
    for k in range(3):
        s = np.linspace(0.50 + 0.05 * k, 0.88 + 0.03 * k, 5) * h
        path = fish.skin_mm(s, np.linspace(0.84 - 0.03 * k, 0.80 - 0.06 * k, 5) * np.pi, 0.92)
        yield Stroke(path, np.full(5, 0.008 * h), 0.75)


def _backbone(fish: Fish, rng: np.random.Generator) -> Iterator[Stroke]:
    edges = np.linspace(1.02 * fish.head_mm, 0.985 * fish.length_mm, VERTEBRAE + 1)
    pitch = float(edges[1] - edges[0])
    height = fish.column_mm(edges)
    for k in range(VERTEBRAE):
        taper = 1 - 0.45 * max(0, k - FIRST_TAIL_VERTEBRA) / (VERTEBRAE - FIRST_TAIL_VERTEBRA)
        radius = 0.36 * pitch * taper * (1.15 if k < FIRST_RIB else 1)
        a = np.array([edges[k] + 0.06 * pitch, height[k], 0])
        b = np.array([edges[k + 1] - 0.06 * pitch, height[k + 1], 0])
        middle = (a + b) / 2
        hourglass = radius * np.array([1, 0.55, 1])
        yield Stroke(np.array([a, middle, b]), hourglass, 1.1, wall=0.09 * pitch)
        centre, half, _ = fish.outline_mm(middle[0])
        yield from _spine(middle, radius, pitch, 0.75 * (centre + half), rng)
        if k >= FIRST_TAIL_VERTEBRA:
            yield from _spine(middle, radius, pitch, 0.75 * (centre - half), rng)
        for bone in _side_bones(fish, middle, radius, pitch, k):
            yield bone
            yield bone.mirrored()


def _spine(
    middle: np.ndarray, radius: float, pitch: float, tip_d: float, rng: np.random.Generator
) -> Iterator[Stroke]:
    """Yield the arch over (or under) a vertebra and the spine on it."""
    up = np.sign(tip_d - middle[1])
    top = middle + np.array([0.25 * pitch, up * (radius + 0.5 * pitch), 0])
    foot = middle + np.array([-0.1 * pitch, up * 0.8 * radius, 0.6 * radius])
    side = Stroke(np.array([foot, top]), np.array([0.06, 0.05]) * pitch, 0.95)
    yield side
    yield side.mirrored()
    slant = 0.75 * abs(tip_d - top[1]) * rng.uniform(0.9, 1.1)
    tip = np.array([top[0] + slant, tip_d, 0])
    yield Stroke(np.array([top, tip]), np.array([0.065, 0.03]) * pitch, 0.95)


def _side_bones(
    fish: Fish, middle: np.ndarray, radius: float, pitch: float, k: int
) -> Iterator[Stroke]:
    """Yield the left bones at vertebra k: of hearing, ribs, and the fine bones in the flesh."""
    if k < FIRST_RIB:
        root = middle + np.array([0, 0, radius])
        tip = middle + np.array([0.3, -0.35, 1.1]) * pitch
        yield Stroke(np.array([root, tip]), np.array([0.13, 0.06]) * pitch, 1.0)
        return
    if k - FIRST_RIB < len(RIB_ENDS):
        s = middle[0] + np.linspace(0.1, 0.55, 6) * 0.09 * fish.length_mm
        path = fish.skin_mm(s, np.linspace(0.47, RIB_ENDS[k - FIRST_RIB], 6) * np.pi, 0.86)
        head = middle + np.array([0, -0.3, 0.8]) * radius
        path = rounded(np.concatenate([head[None], path]), 1)
        yield Stroke(path, np.linspace(1.0, 0.5, len(path)) * 0.008 * fish.head_mm, 0.9)
    root = middle + np.array([0, 0.9 * pitch, 0.25 * pitch])
    tip = fish.skin_mm(middle[0] + 2.2 * pitch, 0.3 * np.pi, 0.75)
    yield Stroke(np.array([root, tip]), np.array([0.032, 0.02]) * pitch, 0.7)
