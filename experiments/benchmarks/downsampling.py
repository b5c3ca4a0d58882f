"""Contenders that shrink a labelled DICOM onto a small grid: jawloc, the lab's way, SimpleITK.

Each imports what it needs while it prepares, and opens the file within its time. With `truth`,
the root-mean-square error against that array becomes one of its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from contenders import Work

MASK_TAG = (0x00BB, 0xB001)
CHUNK_BYTES = 2**23

Shape = tuple[int, int, int]


def read_bytes(paths: Sequence[Path]) -> Work:
    """Read files from end to end and do nothing with them: no contender can be faster."""

    def work() -> None:
        buffer = bytearray(CHUNK_BYTES)
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    return work


def jawloc_cache(paths: Sequence[Path], shape: Shape, workers: int) -> Work:
    """Build jawloc's cache: check, average, hash, count labels, write DICOMs with checksums."""
    from jawloc.scans.cache import CacheConfig, build_cache

    def work() -> None:
        with TemporaryDirectory() as folder:
            config = CacheConfig(downsampled_dicom_size=shape, cache_dir=folder, n_workers=workers)
            built = build_cache(paths, config, base=Path(folder), progress=False).built
        if built != len(paths):
            raise RuntimeError(f"{built} of {len(paths)} scans were downsampled")

    return work


def jawloc_downsample(path: Path, shape: Shape, truth: Path | None = None) -> Work:
    """Average, hash and count labels, as for the cache, and write nothing."""
    from jawloc.scans.dicom import open_labelled_dicom
    from jawloc.scans.downsample import downsample

    return _with_error(lambda: downsample(open_labelled_dicom(path), shape).image, truth)


def by_scipy_zoom(
    path: Path, shape: Shape, truth: Path | None = None, *, same_space: bool = False
) -> Work:
    """Zoom the whole image by cubic splines and its mask by nearest neighbours: the lab's way.

    With `same_space`, source and target span the same space instead of sharing the centres of
    their corner voxels, so that the error is the sampling's alone.
    """
    from scipy import ndimage  # noqa: F401 (imported before the time counts)

    return _with_error(lambda: zoomed(*_read_whole(path), shape, same_space=same_space), truth)


def zoomed(
    image: np.ndarray, mask: np.ndarray, shape: Shape, *, same_space: bool = False
) -> np.ndarray:
    """Zoom an image and its mask in memory, as `by_scipy_zoom`; return the image."""
    from scipy import ndimage

    where = {"grid_mode": True, "mode": "nearest"} if same_space else {}
    factors = [target / source for target, source in zip(shape, image.shape, strict=True)]
    result: np.ndarray = ndimage.zoom(image, factors, order=3, **where)
    ndimage.zoom(mask, factors, order=0, **where)
    return result


def by_simpleitk(path: Path, shape: Shape, truth: Path | None = None) -> Work:
    """Smooth by a recursive Gaussian, then resample linearly; the mask by nearest neighbours.

    The Gaussian has the common width against aliasing, (factor - 1) / 2 voxels.
    """
    import SimpleITK as sitk

    def shrink() -> np.ndarray:
        image, mask = _read_whole(path)
        factors = [s / t for s, t in zip(reversed(image.shape), reversed(shape), strict=True)]
        smooth = sitk.SmoothingRecursiveGaussian(
            sitk.GetImageFromArray(image), [max((f - 1) / 2, 0.01) for f in factors]
        )
        grid = [list(reversed(shape)), sitk.Transform()]
        origin = [(f - 1) / 2 for f in factors]
        places: list[Any] = [origin, factors, smooth.GetDirection(), 0.0]
        small = sitk.Resample(smooth, *grid, sitk.sitkLinear, *places)
        labels = sitk.GetImageFromArray(mask)
        sitk.Resample(labels, *grid, sitk.sitkNearestNeighbor, *places)
        result: np.ndarray = sitk.GetArrayFromImage(small)
        return result

    return _with_error(shrink, truth)


def _read_whole(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import pydicom

    scan = pydicom.dcmread(path)
    image = scan.pixel_array
    return image, np.frombuffer(scan[MASK_TAG].value, np.uint8, image.size).reshape(image.shape)


def _with_error(shrink: Any, truth: Path | None) -> Work:
    if truth is None:

        def work() -> None:
            shrink()

        return work

    def compare() -> Mapping[str, float]:
        error = shrink().astype(np.float64) - np.load(truth)
        return {"rms_error_greys": float(np.sqrt(np.mean(error**2)))}

    return compare
