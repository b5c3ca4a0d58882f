"""Whether crops hold whole objects, judged on downsampled masks: no full-size scan is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.geometry import Shape, map_points
from jawloc.inference.crop import crop_box_around
from jawloc.inference.evaluate_scan import Labels, ScanError
from jawloc.scans.cache import Example, ExampleFile
from jawloc.scans.labels import object_voxels


@dataclass(frozen=True)
class HeldObjects:
    """How many crops hold all of an object, out of the scans that have a mask of it."""

    whole: int
    scans: int


def estimate_crops(
    errors: Iterable[ScanError],
    examples: Mapping[str, ExampleFile],
    objects: Mapping[str, Labels],
    crop_size: Sequence[int],
) -> dict[str, HeldObjects]:
    """Count, for each object, the crops round the found position that hold all of it.

    Parameters
    ----------
    errors : of the found positions
    examples : by scan id
    crop_size : (z, y, x) in voxels of the full-size scan
    """
    found: dict[str, list[bool]] = {name: [] for name in objects}
    for error in errors:
        example = examples[error.scan_id].read()
        holds = crop_holds(example, error, objects[error.object_name], crop_size)
        if holds is not None:
            found[error.object_name].append(holds)
    return {name: HeldObjects(sum(own), len(own)) for name, own in found.items()}


def crop_holds(
    example: Example, error: ScanError, labels: Labels, crop_size: Sequence[int]
) -> bool | None:
    """Return whether the crop holds all of the object's downsampled voxels; None: no mask."""
    if example.mask is None:
        return None
    indices = np.argwhere(object_voxels(example.mask, labels))
    if not len(indices):
        return None
    shape: Shape = example.source_grid.shape_zyx
    window = crop_box_around(error.predicted_voxels.tolist(), crop_size, shape)
    edges = np.stack([indices.min(axis=0) - 0.5, indices.max(axis=0) + 0.5])
    lowest, highest = map_points(edges, example.grid, example.source_grid)
    start = np.asarray(window.start_zyx) - 0.5
    return bool((lowest >= start).all() and (highest <= start + window.size_zyx).all())
