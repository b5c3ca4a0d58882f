"""Whether crops hold whole objects, judged on downsampled masks: no full-size scan is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jawloc.geometry import Shape, map_points
from jawloc.inference.crop import crop_box_around
from jawloc.inference.evaluate_scan import Labels, ScanError
from jawloc.inference.metrics import CropCoverage, crop_coverage
from jawloc.scans.cache import Example, ExampleFile
from jawloc.scans.labels import object_voxels

ROUNDING = 1e-6  # voxels


def estimate_crops(
    errors: Iterable[ScanError],
    examples: Mapping[str, ExampleFile],
    objects: Mapping[str, Labels],
    crop_size: Sequence[int],
) -> dict[str, CropCoverage | None]:
    """Return, for each object, how much of it the crops round the found positions hold.

    Parameters
    ----------
    errors : of the found positions
    examples : by scan id
    crop_size : (z, y, x) in voxels of the full-size scan
    """
    found: dict[str, list[float]] = {name: [] for name in objects}
    for error in errors:
        example = examples[error.scan_id].read()
        share = share_inside(example, error, objects[error.object_name], crop_size)
        if share is not None:
            found[error.object_name].append(share)
    return {name: crop_coverage(shares) for name, shares in found.items()}


def share_inside(
    example: Example, error: ScanError, labels: Labels, crop_size: Sequence[int]
) -> float | None:
    """Return the share of the object's downsampled voxels that lie whole in the crop.

    None without a mask, or where that has none of the object.
    """
    if example.mask is None:
        return None
    indices = np.argwhere(object_voxels(example.mask, labels))
    if not len(indices):
        return None
    shape: Shape = example.source_grid.shape_zyx
    window = crop_box_around(error.predicted_voxels.tolist(), crop_size, shape)
    lowest, highest = (
        map_points(indices + half, example.grid, example.source_grid) for half in (-0.5, 0.5)
    )
    start = np.asarray(window.start_zyx) - 0.5
    # a voxel on the border may be mapped beyond it, by rounding
    inside = (lowest >= start - ROUNDING) & (highest <= start + window.size_zyx + ROUNDING)
    return float(inside.all(axis=1).mean())
