"""Builds a zebrafish's fins."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jawloc.phantom.anatomy import Fish
from jawloc.phantom.shapes import Stroke


def fins(fish: Fish, rng: np.random.Generator) -> Iterator[Stroke]:
    """Yield the bones of all fins, and the thin skin between their rays."""
    lean = 0.6 + 0.7 * fish.fin_fold
    yield from _median_fin(fish, (0.575, 0.70), 9, (0.155, 0.075), 1, lean, rng)
    yield from _median_fin(fish, (0.655, 0.80), 13, (0.13, 0.055), -1, lean, rng)
    yield from _tail_fin(fish, rng)
    for bone in _paired_fins(fish, rng):
        yield bone
        yield bone.mirrored()


def _tail_fin(fish: Fish, rng: np.random.Generator) -> Iterator[Stroke]:
    size = fish.length_mm
    for v in np.linspace(-1, 1, 19):
        root = np.array([size * (0.985 + 0.015 * (1 - abs(v))), 0.042 * size * v, 0])
        plate = np.array([size * 0.955, 0.008 * size * v, 0])
        yield Stroke(np.array([plate, root]), np.array([0.0022, 0.0032]) * size, 0.85)
        reach = size * (0.13 + 0.10 * abs(v) ** 1.3)  # forked
        spread = v * (0.62 - 0.25 * fish.fin_fold)
        yield from _ray(root, np.array([np.cos(spread), np.sin(spread), 0]), reach, size, rng)


def _paired_fins(fish: Fish, rng: np.random.Generator) -> Iterator[Stroke]:
    """Yield the left pectoral and pelvic fin."""
    size, fold = fish.length_mm, fish.fin_fold
    for k in range(9):
        root = np.array([1.13, -0.15 - 0.014 * k, 0.272]) * fish.head_mm
        way = np.array([1.0, 0.05 - 0.10 * k, 0.30 - 0.18 * fold + 0.02 * k])
        yield from _ray(root, way, (0.14 - 0.007 * k) * size, 0.7 * size, rng)
    pelvis = fish.skin_mm(np.array([0.41, 0.47]) * size, np.array([0.97, 0.9]) * np.pi, 0.92)
    yield Stroke(pelvis, np.array([0.0014, 0.0026]) * size, 0.8)
    for k in range(7):
        root = fish.skin_mm((0.472 + 0.003 * k) * size, (0.91 - 0.012 * k) * np.pi)
        way = np.array([1.0, -0.45 + 0.05 * k, 0.05 + 0.05 * k])
        yield from _ray(root, way, (0.115 - 0.006 * k) * size, 0.7 * size, rng)


def _median_fin(
    fish: Fish,
    span: tuple[float, float],
    count: int,
    lengths: tuple[float, float],
    up: int,
    lean: float,
    rng: np.random.Generator,
) -> Iterator[Stroke]:
    """Yield a fin of the back (up = 1) or the belly (-1) with the bones that carry it."""
    size = fish.length_mm
    for share in np.linspace(0, 1, count):
        s = size * (span[0] + share * (span[1] - span[0]))
        centre, half, _ = fish.outline_mm(s)
        root = np.array([s, centre + up * half, 0])
        inner = np.array([s - 0.02 * size, centre + up * 0.55 * half, 0])
        yield Stroke(np.array([inner, root]), np.array([0.0011, 0.0022]) * size, 0.85)
        angle = lean * (0.75 + 0.5 * share)
        way = np.array([np.sin(angle), up * np.cos(angle), 0])
        reach = size * (lengths[0] + (lengths[1] - lengths[0]) * share**0.8)
        yield from _ray(root, way, reach * (0.72 if share == 0 else 1), size, rng)


def _ray(
    root: np.ndarray, way: np.ndarray, reach: float, size: float, rng: np.random.Generator
) -> Iterator[Stroke]:
    """Yield a fin ray that forks, and the thin skin beside it."""
    way = way / np.linalg.norm(way)
    across = np.array([-way[1], way[0], 0]) * 0.04
    sway = np.array([0, 0, rng.normal(0, 0.03)])
    knot = root + 0.5 * reach * way
    thick = 0.0023 * size
    yield Stroke(np.array([root, knot]), np.array([1.3, 0.9]) * thick, 0.85)
    for fork in (1, -1):
        tip = root + reach * (way + fork * across + sway)
        yield Stroke(np.array([knot, tip]), np.array([0.65, 0.35]) * thick, 0.7)
    edge = root + 0.95 * reach * (way + sway)
    yield Stroke(np.array([root, edge]), np.array([1.8, 3.8]) * thick, 0.09)
