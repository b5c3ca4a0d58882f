"""Crop box and radius as lines: in a slice through them, and in space. Voxels, (z, y, x)."""

from __future__ import annotations

from itertools import product

import numpy as np

from jawloc.geometry import Triple
from jawloc.inference.crop import CropBox

_CORNERS = 48  # of a circle


def circle_in_slice(
    centre: np.ndarray, radius: float, spacing: Triple, axis: int, at: float
) -> np.ndarray | None:
    """Return the outline (n, 3) of a sphere in the slice `at` along an axis; None beside it.

    `radius` is in the unit of the spacing; centre, `at` and the outline are in voxels.
    """
    within = radius**2 - ((at - centre[axis]) * spacing[axis]) ** 2
    if within <= 0:
        return None
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    outline = np.empty((_CORNERS, 3))
    outline[:, axis] = at
    first, second = (other for other in range(3) if other != axis)
    outline[:, first] = centre[first] + np.sqrt(within) / spacing[first] * np.sin(angle)
    outline[:, second] = centre[second] + np.sqrt(within) / spacing[second] * np.cos(angle)
    return outline


def box_in_slice(window: CropBox, axis: int, at: float) -> np.ndarray | None:
    """Return the outline (4, 3) of a box in a slice; None beside it."""
    low = np.asarray(window.start_zyx) - 0.5
    high = low + window.size_zyx
    if not low[axis] <= at <= high[axis]:
        return None
    first, second = (other for other in range(3) if other != axis)
    outline = np.empty((4, 3))
    outline[:, axis] = at
    outline[:, first] = low[first], low[first], high[first], high[first]
    outline[:, second] = low[second], high[second], high[second], low[second]
    return outline


def box_edges(window: CropBox) -> list[np.ndarray]:
    """Return the twelve edges (2, 3) of a box."""
    low = np.asarray(window.start_zyx) - 0.5
    ends = np.stack([low, low + window.size_zyx])
    edges = []
    for axis in range(3):
        first, second = (other for other in range(3) if other != axis)
        for i, j in product((0, 1), repeat=2):
            edge = ends.copy()
            edge[:, first], edge[:, second] = ends[i, first], ends[j, second]
            edges.append(edge)
    return edges


def sphere(centre: np.ndarray, radius: float, spacing: Triple) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices (n, 3), in voxels, and the triangles (m, 3) of a sphere.

    `radius` is in the unit of the spacing.
    """
    rows, columns = 13, 24
    polar, around = np.meshgrid(
        np.linspace(0, np.pi, rows),
        np.linspace(0, 2 * np.pi, columns, endpoint=False),
        indexing="ij",
    )
    unit = np.stack(
        [np.cos(polar), np.sin(polar) * np.sin(around), np.sin(polar) * np.cos(around)], axis=-1
    ).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    here, right = index[:-1], np.roll(index, -1, axis=1)[:-1]
    below, corner = index[1:], np.roll(index, -1, axis=1)[1:]
    triangles = np.concatenate(
        [np.stack([here, right, below], -1), np.stack([right, corner, below], -1)]
    ).reshape(-1, 3)
    return np.asarray(centre) + radius * unit / np.asarray(spacing), triangles
