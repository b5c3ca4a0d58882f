"""Windows of a fixed size round a point: shifted inside at borders, padded in small scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from jawloc.geometry import Shape
from jawloc.scans.scan import ScanFile


@dataclass(frozen=True)
class CropConfig:
    """The crop's size in voxels of the full-size scan, (z, y, x)."""

    crop_size: tuple[
        Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]
    ] = (192, 192, 192)


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
    start, shifted, padded = [], False, False
    for point, size, length in zip(point_voxels, size_zyx, shape_zyx, strict=True):
        wanted = round(point - (size - 1) / 2)
        inside = min(max(wanted, 0), length - size) if size <= length else (length - size) // 2
        shifted |= inside != wanted
        padded |= size > length
        start.append(inside)
    fit: Literal["centred", "shifted", "padded"]
    fit = "padded" if padded else "shifted" if shifted else "centred"
    return CropBox((start[0], start[1], start[2]), (*map(int, size_zyx),), fit)  # type: ignore[arg-type]


def read_crop(scan: ScanFile, window: CropBox) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a window of a scan file, slice by slice.

    Returns
    -------
    image and mask (None where the scan has none), both of the window's size; outside the scan
    the image holds the window's lowest grey value and the mask 0. Grey values are as
    `ScanFile.grey_values` gives them.
    """
    inside = [
        slice(max(start, 0), min(start + size, length))
        for start, size, length in zip(
            window.start_zyx, window.size_zyx, scan.grid.shape_zyx, strict=True
        )
    ]
    image = scan.grey_values(_read_box(scan.read_image, inside))
    padding = [
        (part.start - start, start + size - part.stop)
        for part, start, size in zip(inside, window.start_zyx, window.size_zyx, strict=True)
    ]
    mask = None
    if scan.read_mask is not None:
        mask = np.pad(_read_box(scan.read_mask, inside), padding)
    return np.pad(image, padding, constant_values=image.min()), mask


def _read_box(read, box: list[slice]) -> np.ndarray:  # type: ignore[no-untyped-def]
    z, y, x = box
    return np.concatenate([read(i, i + 1)[:, y, x] for i in range(z.start, z.stop)])
