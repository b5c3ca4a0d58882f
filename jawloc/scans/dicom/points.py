"""Points in a labelled DICOM: JSON in a private element, in place of the mask."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.scans.dicom.attributes import MASK_TAG, POINTS_TAG, has_creator
from jawloc.scans.dicom.header import json_value
from jawloc.scans.points import is_object_key, point_mistakes
from jawloc.scans.scan import ScanPoint


def points_text(points: Sequence[ScanPoint]) -> str:
    """Return points as the text of their element; empty without any.

    It is a JSON list with, for each object, its name or label value under `object`, and its
    position `z`, `y` and `x` in voxels of the scan; the centre of the first voxel is 0.
    """
    if not points:
        return ""
    return json.dumps(
        [{"object": p.object, **dict(zip("zyx", p.voxels_zyx, strict=True))} for p in points],
        ensure_ascii=True,  # the file names no character set
    )


def read_points(header: Dataset, shape_zyx: Shape, path: Path) -> tuple[ScanPoint, ...]:
    """Return the points of an opened file, which has the shape; none without the element.

    Raise InputError if the element is not as `points_text` makes it, one of its points lies outside
    the scan, two are of one object, or the file has a mask as well.
    """
    if POINTS_TAG not in header or not has_creator(header):
        return ()
    found = json_value(header, POINTS_TAG, f"{path.name}: its points must be JSON")
    points = tuple(_point(item, path) for item in found) if isinstance(found, list) else ()
    if not points:
        raise InputError(f"{path.name}: its points must be a list of at least one; got {found!r}")
    if MASK_TAG in header:
        raise InputError(
            f"{path.name}: a labelled DICOM has a mask or points; it has a mask and "
            f"{len(points)} point{'' if len(points) == 1 else 's'}"
        )
    for _, mistake in point_mistakes(points, shape_zyx):
        raise InputError(f"{path.name}: {mistake}")
    return points


def _point(item: Any, path: Path) -> ScanPoint:
    expected = {"object", *"zyx"}
    if isinstance(item, dict) and set(item) == expected and is_object_key(item["object"]):
        place = [item[axis] for axis in "zyx"]
        if all(type(value) in (int, float) for value in place):
            with suppress(OverflowError):  # of a whole number that no float holds
                z, y, x = map(float, place)
                if np.isfinite((z, y, x)).all():
                    return ScanPoint(item["object"], (z, y, x))
    raise InputError(
        f"{path.name}: a point must have a name or a label value 1 to 255 under object, and "
        f"numbers under z, y and x; got {item!r}"
    )
