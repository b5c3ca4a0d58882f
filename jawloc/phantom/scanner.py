"""The scanner's part of a phantom: grey levels, tube, rings, shading and noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Grid
from jawloc.phantom.raster import GridSlab, covered_fraction

# A tall scan is joined from stretches that were scanned one after the other.
STRETCHES = 3
# Share of each voxel's noise in its neighbour's: voxels of a reconstruction share projections.
SHARED_NOISE = 0.4
RING_PITCH_MM = 0.02
NOISE = 3  # the purpose that a slice's noise is seeded for


@dataclass(frozen=True)
class GreyLevels:
    """Grey levels of one scan; flesh is 1 and air 0 before gain and offset.

    Attributes
    ----------
    medium, plastic : float
        Level of the medium in the tube, and of the tube's wall.
    bone_contrast : float
        Difference between bone of density 1 and its surroundings.
    texture, noise, rings, shading : float
        Strength of the flesh's mottling, of one voxel's noise, of the rings, and of the
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


def tube_plane(grey_levels: GreyLevels, grid: Grid) -> np.ndarray:
    """Return one slice (y, x) of the empty tube."""
    radius, pixel_mm = _radius_mm(grid)
    inside = covered_fraction(grey_levels.tube_radius_mm - radius, pixel_mm)
    cavity = covered_fraction(0.93 * grey_levels.tube_radius_mm - radius, pixel_mm)
    return (
        inside * grey_levels.plastic + cavity * (grey_levels.medium - grey_levels.plastic)
    ).astype("f4")


def scanner_planes(grey_levels: GreyLevels, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Return the rings and shading of each stretch, shape (STRETCHES, y, x)."""
    radius, pixel_mm = _radius_mm(grid)
    # Drawn for all grids alike: they span the same space.
    at_mm = np.arange(int(1.5 * grey_levels.tube_radius_mm / RING_PITCH_MM) + 3) * RING_PITCH_MM
    width = max(1, round(pixel_mm / RING_PITCH_MM))
    planes = []
    for _ in range(STRETCHES):
        faint, strong = rng.standard_normal((2, len(at_mm)))
        profile = 0.5 * faint + 3 * strong * (rng.random(len(at_mm)) < 0.025)
        profile /= np.sqrt(1 + at_mm / 1.5)  # an error of one detector pixel spreads outwards
        # Wider voxels average rings, but a scan at that size has rings of its own.
        profile = np.convolve(profile, np.ones(width), "same") / np.sqrt(width)
        plane = grey_levels.rings * np.interp(radius, at_mm, profile)
        plane += grey_levels.shading * ((radius / grey_levels.tube_radius_mm) ** 2 - 0.5)
        planes.append(plane + 0.015 * rng.standard_normal())
    return np.stack(planes).astype("f4")


def _radius_mm(grid: Grid) -> tuple[np.ndarray, float]:
    """Return each voxel's distance from the tube's axis (y, x), and the voxels' edge."""
    _, hy, hx = np.asarray(grid.spacing_mm_zyx, float)
    _, ny, nx = grid.shape_zyx
    y = (np.arange(ny) + 0.5 - ny / 2) * hy
    x = (np.arange(nx) + 0.5 - nx / 2) * hx
    return np.hypot(y[:, None], x[None, :]).astype("f4"), float(np.sqrt(hy * hx))


def scanned(
    levels: np.ndarray, planes: np.ndarray, grey_levels: GreyLevels, window: GridSlab, seed: int
) -> Iterator[np.ndarray]:
    """Yield the slices of `levels` (slices, y, x) as the scanner would store them, uint16."""
    height = window.grid.shape_zyx[0]
    share = np.float32(SHARED_NOISE)
    for number, plane in enumerate(levels, window.first_slice):
        seeds = np.random.SeedSequence([seed, NOISE, number])
        noise = np.random.Generator(np.random.PCG64(seeds)).standard_normal(
            plane.shape, dtype=np.float32
        )
        noise[:-1] += share * noise[1:]
        noise[:, :-1] += share * noise[:, 1:]
        noise *= np.float32(grey_levels.noise / (1 + SHARED_NOISE**2))
        noise += plane
        noise += planes[number * len(planes) // height]
        noise *= np.float32(grey_levels.gain)
        noise += np.float32(grey_levels.offset + 0.5)
        yield np.clip(noise, 0, 65535, out=noise).astype(np.uint16)
