"""Windows of a fixed size round a point: shifted inside at borders, padded in small scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from jawloc.geometry import Shape
from jawloc.scans.scan import ScanFile, Slices

Length = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class CropConfig:
    """The crop's size in voxels of the full-size scan, (z, y, x)."""

    # (z, y, x) of the window that is cropped, in voxels of the full-size scan; the model keeps it
    crop_size: tuple[Length, Length, Length] = (192, 192, 192)


@dataclass(frozen=True)
class CropBox:
    """A box of voxels; `start_zyx` is negative where the scan is smaller than the window."""

    start_zyx: Shape
    size_zyx: Shape
    fit: Literal["centred", "shifted", "padded"]


def crop_box_around(
    point_voxels: Sequence[float], size_zyx: Sequence[int], shape_zyx: Sequence[int]
) -> CropBox:
    """Place a window so that the point is as near its middle as the scan's borders allow."""
    point, size, shape = (np.asarray(values) for values in (point_voxels, size_zyx, shape_zyx))
    wanted = np.rint(point - (size - 1) / 2).astype(int)
    padded = size > shape
    start = np.where(padded, (shape - size) // 2, np.minimum(wanted.clip(0), shape - size))
    fit: Literal["centred", "shifted", "padded"]
    fit = "padded" if padded.any() else "shifted" if (start != wanted).any() else "centred"
    return CropBox((*start.tolist(),), (*size.tolist(),), fit)


def read_crop(scan: ScanFile, window: CropBox) -> np.ndarray:
    """Read the image in a window, slice by slice, as `ScanFile.grey_values` returns it.

    Outside the scan it holds the window's lowest grey value.
    """
    inside, padding = _inside(scan, window)
    image = scan.grey_values(_read_box(scan.read_image, inside))
    return np.pad(image, padding, constant_values=image.min())


def read_mask_crop(scan: ScanFile, window: CropBox) -> np.ndarray | None:
    """Read the mask in a window, 0 outside the scan; None if the scan has no mask."""
    if scan.read_mask is None:
        return None
    inside, padding = _inside(scan, window)
    return np.pad(_read_box(scan.read_mask, inside), padding)


def _inside(scan: ScanFile, window: CropBox) -> tuple[list[slice], np.ndarray]:
    """Return the part of a window that lies in the scan, and how far it reaches out of it."""
    start = np.asarray(window.start_zyx)
    stop = start + window.size_zyx
    first, last = start.clip(0), np.minimum(stop, scan.grid.shape_zyx)
    inside = [slice(*ends) for ends in zip(first.tolist(), last.tolist(), strict=True)]
    return inside, np.stack([first - start, stop - last], axis=1)


def _read_box(read: Slices, box: list[slice]) -> np.ndarray:
    z, y, x = box
    return np.concatenate([read(i, i + 1)[:, y, x] for i in range(z.start, z.stop)])
