"""Synthetic micro-CT scans of zebrafish for the demo and the tests.

A phantom is drawn (`draw_phantom`: a few dozen numbers) and then rendered (`phantom_slabs`) on any
grid: the anatomy is in millimetres, so one seed is one fish at every size. Position of the jaw,
length, voxel size and age follow 465 real scans (Jean Golding Institute, University of
Bristol, MIT); the anatomy itself is made up.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from jawloc.errors import InputError
from jawloc.phantom.drawing import (
    MOTTLE,
    NATIVE_SHAPE,
    RINGS,
    Phantom,
    draw_phantom,
    seeded_generator,
)
from jawloc.phantom.raster import GridSlab, draw_ellipsoids, draw_tubes, label_tubes
from jawloc.phantom.scanner import scanned, scanner_planes, tube_plane
from jawloc.phantom.shapes import Tubes
from jawloc.phantom.skeleton import chin, skeleton
from jawloc.phantom.tissue import Mottle, Pose, dense_organs, draw_flesh, soft_organs
from jawloc.scans.cores import usable_cores
from jawloc.scans.dicom import read_metadata, write_labelled_dicom_slabs
from jawloc.scans.progress import Progress
from jawloc.scans.scan import Scan

__all__ = [
    "Phantom",
    "brightest_spot",
    "draw_phantom",
    "make_phantom",
    "phantom_slabs",
    "write_phantom",
    "write_phantoms",
]

# Written into every file; raise it when phantoms change, so that old files are made anew.
PHANTOM_VERSION = 2
MOTTLE_PITCH_MM = 0.35
# Less work than this takes less time than starting another process.
SERIAL_VOXELS = 10_000_000


def phantom_slabs(
    phantom: Phantom, slices_per_slab: int = 32, *, without_jaw: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Render a phantom from the floor up.

    Parameters
    ----------
    without_jaw : leave out the jaw's bones and the flesh that moves with them; the mask is empty

    Yields
    ------
    (image, mask) : arrays of uint16 and uint8, shape (at most slices_per_slab, y, x)
        The voxels don't depend on how thick the slabs are.
    """
    grid, fish, pose, grey_levels = phantom.grid, phantom.fish, phantom.pose, phantom.grey_levels
    extent = np.asarray(grid.shape_zyx) * np.asarray(grid.spacing_mm_zyx, float)
    corner = extent * (0, 0.5, 0.5)  # poses count from the tube's axis, voxels from the corner
    bones = _posed(skeleton(fish, phantom.arch_labels), pose, corner)
    jaw = bones.take(bones.label > 0)
    lips = _posed(chin(fish), pose, corner)
    if without_jaw:
        bones = bones.take(bones.label == 0)
    soft = [organ.posed(pose, corner) for organ in soft_organs(fish, grey_levels)]
    dense = [organ.posed(pose, corner) for organ in dense_organs(fish, grey_levels)]
    mottle = Mottle.draw(seeded_generator(phantom.seed, MOTTLE), extent, MOTTLE_PITCH_MM)
    empty = tube_plane(grey_levels, grid)
    planes = scanner_planes(grey_levels, grid, seeded_generator(phantom.seed, RINGS))
    for first in range(0, grid.shape_zyx[0], slices_per_slab):
        window = GridSlab(grid, first)
        levels = np.repeat(empty[None], min(slices_per_slab, grid.shape_zyx[0] - first), 0)
        draw_flesh(levels, fish, pose, grey_levels, mottle, window)
        share = np.zeros_like(levels)
        if not without_jaw:
            draw_tubes(share, lips, window)
        levels += share * (1 - levels)
        draw_ellipsoids(levels, soft, window)
        bone = np.zeros_like(levels)
        draw_tubes(bone, bones, window)
        bone *= np.float32(grey_levels.bone_contrast)
        levels += bone
        draw_ellipsoids(levels, dense, window)
        mask = np.zeros(levels.shape, np.uint8)
        if not without_jaw:
            label_tubes(mask, jaw, window)
        yield np.stack(list(scanned(levels, planes, grey_levels, window, phantom.seed))), mask


def _posed(tubes: Tubes, pose: Pose, corner_mm: np.ndarray) -> Tubes:
    """Return tubes in the world, in mm from the field of view's corner."""
    start, end = (pose.to_world(p) + corner_mm for p in (tubes.start_mm, tubes.end_mm))
    return Tubes(start, end, *tubes.columns()[2:])


def make_phantom(
    seed: int,
    shape_zyx: Sequence[int] = NATIVE_SHAPE,
    *,
    any_rotation: bool = True,
    arch_labels: bool = False,
    without_jaw: bool = False,
) -> Scan:
    """Draw and render a phantom in memory (see `draw_phantom` and `phantom_slabs`)."""
    phantom = draw_phantom(seed, shape_zyx, any_rotation=any_rotation, arch_labels=arch_labels)
    slabs = list(phantom_slabs(phantom, without_jaw=without_jaw))
    image = np.concatenate([image for image, _ in slabs])
    mask = np.concatenate([mask for _, mask in slabs])
    return Scan(f"phantom_{seed:03d}", image, mask, phantom.grid)


def write_phantom(
    path: Path,
    seed: int,
    shape_zyx: Sequence[int] = NATIVE_SHAPE,
    *,
    any_rotation: bool = True,
    arch_labels: bool = False,
) -> None:
    """Write a phantom as a labelled DICOM, slab by slab (see `draw_phantom`)."""
    phantom = draw_phantom(seed, shape_zyx, any_rotation=any_rotation, arch_labels=arch_labels)
    notes = {"phantom": _settings(seed, shape_zyx, any_rotation, arch_labels)}
    write_labelled_dicom_slabs(
        path, phantom_slabs(phantom), phantom.grid, np.dtype(np.uint16), metadata=notes
    )


def _settings(
    seed: int, shape_zyx: Sequence[int], any_rotation: bool, arch_labels: bool
) -> dict[str, Any]:
    return {
        "version": PHANTOM_VERSION,
        "seed": seed,
        "shape_zyx": [int(n) for n in shape_zyx],
        "any_rotation": any_rotation,
        "arch_labels": arch_labels,
    }


def phantom_ids(count: int) -> list[str]:
    """Return the scan ids of `count` phantoms: `phantom_000`, ..."""
    return [f"phantom_{number:03d}" for number in range(count)]


def write_phantoms(
    folder: Path,
    count: int,
    shape_zyx: Sequence[int] = NATIVE_SHAPE,
    seed: int = 0,
    progress: bool = True,
    *,
    any_rotation: bool = True,
    arch_labels: bool = False,
) -> list[Path]:
    """Make the phantoms `phantom_000.dcm` ... that are missing in a folder.

    Phantoms numbered `count` or higher, from an earlier call, are removed, since they would be
    used with the folder; a file of such a name without a phantom's metadata stays.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    count : int
        How many; file i holds the phantom of seed `seed` + i.
    shape_zyx, any_rotation, arch_labels
        As in `draw_phantom`. A file made with other settings, or damaged, is made anew.
    progress : bool
        Show a bar.

    Returns
    -------
    list of Path, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{phantom}.dcm" for phantom in phantom_ids(count)]
    _remove_surplus(folder, count)
    jobs = [
        (path, seed + number, tuple(int(n) for n in shape_zyx), any_rotation, arch_labels)
        for number, path in enumerate(paths)
    ]
    missing = [job for job in jobs if _recorded_settings(job[0]) != _settings(*job[1:])]
    workers = min(len(missing), usable_cores())
    with Progress(total=len(missing), desc="phantoms", unit="scan", shown=progress) as bar:
        if workers < 2 or len(missing) * np.prod(shape_zyx) < SERIAL_VOXELS:
            for job in missing:
                _write_job(job)
                bar.update()
            return paths
        # Fresh processes: a fork of one that runs threads can hang.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            try:
                for done in as_completed([pool.submit(_write_job, job) for job in missing]):
                    done.result()
                    bar.update()
            finally:  # after an error or Ctrl-C, don't wait for those not begun
                pool.shutdown(cancel_futures=True)
    return paths


def _write_job(job: tuple[Path, int, tuple[int, ...], bool, bool]) -> None:
    path, seed, shape, any_rotation, arch_labels = job
    write_phantom(path, seed, shape, any_rotation=any_rotation, arch_labels=arch_labels)


def _remove_surplus(folder: Path, count: int) -> None:
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(r"phantom_(\d{3,})\.dcm", path.name)
        if match and int(match[1]) >= count and _recorded_settings(path) is not None:
            path.unlink()


def _recorded_settings(path: Path) -> Any:
    """Return the settings that a phantom file was made with; None for any other file."""
    try:
        return (read_metadata(path) or {}).get("phantom") if path.is_file() else None
    except InputError:
        return None


def brightest_spot(image: np.ndarray) -> np.ndarray:
    """Return the point (z, y, x) of the brightest voxel after smoothing over one voxel.

    The demo compares a locator with it. It copies the image, so use it on downsampled ones.
    """
    smooth = ndimage.gaussian_filter(np.asarray(image, np.float32), 1.0)
    return np.array(np.unravel_index(np.argmax(smooth), smooth.shape), float)
