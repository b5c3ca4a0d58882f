"""A noisy scan whose noise-free density is known in closed form, and so are its area averages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jawloc.geometry import Grid
from jawloc.scans.dicom import write_labelled_dicom_slabs

LEVEL, CONTRAST, NOISE = 20_000.0, 4_000.0, 4_000.0  # grey values; noise is a standard deviation
WAVES = 6  # products of a cosine along each axis
SHORTEST_PERIOD = 1 / 12  # of an axis: about ten voxels of a 128 grid
SLICES = 16  # at a time

Shape = tuple[int, int, int]


def write_smooth_scan(path: Path, source: Shape, target: Shape, seed: int) -> dict[str, np.ndarray]:
    """Write a scan as a labelled DICOM with a small box as its mask.

    Returns
    -------
    dict of arrays of float64, shape `target`
        `truth`: exact area averages of the noise-free density. `noisy`: those of the scan as
        written, the best that averaging can do.
    """
    rng = np.random.default_rng(seed)
    waves = [[_wave(rng, size) for size in source] for _ in range(WAVES)]
    matrices = [averaging_matrix(s, t) for s, t in zip(source, target, strict=True)]
    truth = np.full(target, LEVEL)
    for wave in waves:
        z, y, x = (matrix @ factor for matrix, factor in zip(matrices, wave, strict=True))
        truth += CONTRAST / WAVES * z[:, None, None] * y[:, None] * x
    noisy = np.zeros(target)
    grid = Grid(source, (0.021, 0.021, 0.021))
    slabs = _slabs(source, waves, matrices, noisy, rng)
    write_labelled_dicom_slabs(path, slabs, grid, np.dtype(np.uint16))
    return {"truth": truth, "noisy": noisy}


def _slabs(
    source: Shape,
    waves: list[list[np.ndarray]],
    matrices: list[np.ndarray],
    noisy: np.ndarray,
    rng: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield image and mask slab by slab, and add what is yielded to its area averages."""
    for start in range(0, source[0], SLICES):
        stop = min(start + SLICES, source[0])
        density = np.full((stop - start, *source[1:]), LEVEL, np.float32)
        for z, y, x in waves:
            density += (CONTRAST / WAVES * z[start:stop, None, None] * y[:, None] * x).astype("f4")
        density += NOISE * rng.standard_normal(density.shape, np.float32)
        image = np.rint(density).clip(0, 65535).astype(np.uint16)
        planes = matrices[1] @ image.astype(np.float64) @ matrices[2].T
        noisy += np.tensordot(matrices[0][:, start:stop], planes, 1)
        mask = np.zeros(image.shape, np.uint8)
        if start <= source[0] // 2 < stop:
            mask[:, source[1] // 3 : source[1] // 2, source[2] // 3 : source[2] // 2] = 1
        yield image, mask


def _wave(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw one axis's factor of a wave, shape (size,)."""
    periods, phase = rng.uniform(1, 1 / SHORTEST_PERIOD), rng.uniform(0, 2 * np.pi)
    wave: np.ndarray = np.cos(2 * np.pi * periods * (np.arange(size) + 0.5) / size + phase)
    return wave


def averaging_matrix(source: int, target: int) -> np.ndarray:
    """Return the area averages of one axis as a dense matrix, shape (target, source).

    Written from the definition, independently of jawloc's own, to check that one.
    """
    edges = np.arange(target + 1) * source / target
    voxels = np.arange(source)
    overlap = np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels)
    matrix: np.ndarray = overlap.clip(0) * (target / source)
    return matrix
