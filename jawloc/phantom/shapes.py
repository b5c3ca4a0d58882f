"""The shapes that phantoms are made of, in millimetres: tubes, strokes of tubes, ellipsoids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MIRROR = np.array([1, 1, -1])  # to the fish's other side


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
        Level of a voxel that lies wholly inside.
    label : array of uint8, shape (n,)
        Value in the mask; 0 without a label.
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
        axis, taper = (whole.end_mm - whole.start_mm, whole.end_radius_mm - whole.start_radius_mm)
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
class Stroke:
    """One bone: a path (k, 3) in mm with a radius at each point."""

    path: np.ndarray
    radius: np.ndarray
    density: float
    wall: float = np.inf
    label: int = 0

    def mirrored(self) -> Stroke:
        """Return the same bone on the fish's other side."""
        return Stroke(self.path * MIRROR, self.radius, self.density, self.wall, self.label)


def joined(strokes: list[Stroke]) -> Tubes:
    """Return the tubes between the points of all strokes."""
    counts = [len(s.path) - 1 for s in strokes]
    return Tubes(
        np.concatenate([s.path[:-1] for s in strokes]),
        np.concatenate([s.path[1:] for s in strokes]),
        np.concatenate([s.radius[:-1] for s in strokes]),
        np.concatenate([s.radius[1:] for s in strokes]),
        np.repeat([s.wall for s in strokes], counts),
        np.repeat([s.density for s in strokes], counts),
        np.repeat(np.array([s.label for s in strokes], np.uint8), counts),
    )


def rounded(path: np.ndarray, times: int = 2) -> np.ndarray:
    """Cut the corners off a path (k, 3), keeping its ends (Chaikin's subdivision)."""
    for _ in range(times if len(path) > 2 else 0):
        cuts = np.stack(
            [0.75 * path[:-1] + 0.25 * path[1:], 0.25 * path[:-1] + 0.75 * path[1:]], 1
        ).reshape(-1, 3)
        path = np.concatenate([path[:1], cuts[1:-1], path[-1:]])
    return path
