"""Points in a labelled DICOM: JSON in a private element, in place of the mask."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Shape, Triple
from jawloc.scans.dicom.attributes import MASK_TAG, POINTS_TAG, has_creator
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
    text = header[POINTS_TAG].value
    with as_input_error(f"{path.name}: its points must be JSON", TypeError, ValueError):
        found = json.loads(text if isinstance(text, str) else bytes(text).rstrip(b"\0 "))
    points = tuple(_point(item, path) for item in found) if isinstance(found, list) else ()
    if not points:
        raise InputError(f"{path.name}: its points must be a list of at least one; got {found!r}")
    if MASK_TAG in header:
        raise InputError(
            f"{path.name}: a labelled DICOM has a mask or points; it has a mask and "
            f"{len(points)} points"
        )
    for _, mistake in point_mistakes(points, shape_zyx):
        raise InputError(f"{path.name}: {mistake}")
    return points


def point_mistakes(points: Sequence[ScanPoint], shape_zyx: Shape) -> Iterator[tuple[int, str]]:
    """Yield the number of each point outside a scan, or that is an object's second, and why."""
    seen: dict[int | str, Triple] = {}
    for number, point in enumerate(points):
        at = np.asarray(point.voxels_zyx)
        if not np.all((at >= -0.5) & (at <= np.asarray(shape_zyx) - 0.5)):
            yield (
                number,
                f"a point must lie in its scan, which has {shape_zyx} voxels (z, y, x), numbered "
                f"from 0; {_name(point)} is at {_shown(point.voxels_zyx)}",
            )
        if point.object in seen:
            yield (
                number,
                f"an object has one point in a scan; {_name(point)} has "
                f"{_shown(seen[point.object])} and {_shown(point.voxels_zyx)}",
            )
        seen.setdefault(point.object, point.voxels_zyx)


def _name(point: ScanPoint) -> str:
    return repr(point.object) if isinstance(point.object, str) else f"label value {point.object}"


def _shown(voxels_zyx: Triple) -> str:
    return f"({', '.join(f'{value:g}' for value in voxels_zyx)})"


def _point(item: Any, path: Path) -> ScanPoint:
    expected = {"object", *"zyx"}
    if isinstance(item, dict) and set(item) == expected and is_object_key(item["object"]):
        place = [item[axis] for axis in "zyx"]
        if all(type(value) in (int, float) for value in place) and np.isfinite(place).all():
            z, y, x = map(float, place)
            return ScanPoint(item["object"], (z, y, x))
    raise InputError(
        f"{path.name}: a point must have a name or a label value 1 to 255 under object, and "
        f"numbers under z, y and x; got {item!r}"
    )


def is_object_key(given: Any) -> bool:
    """Return whether this tells which object a point is of: a name, or a label value 1 ... 255."""
    return (isinstance(given, str) and given != "") or (type(given) is int and 1 <= given <= 255)
