"""Where DICOM volumes lie in patient space: from the positions of their slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jawloc.geometry import Placement, placement_from_xyz
from jawloc.scans.dicom.header import first_item, functional_group, header_value, read_header
from jawloc.scans.dicom.spacing import float_arrays

# Cosine of the angle between the slices' normal and the direction from slice to slice, at least.
LEAST_COSINE = 0.9999


def frames_placement(path: Path) -> Placement | None:
    """Return where a multi-frame DICOM lies; None where its frames have no positions."""
    header = read_header(path)
    frames = header_value(header, "PerFrameFunctionalGroupsSequence", path) or []
    if len(frames) < 2:
        return None
    places = [first_item(frame, "PlanePositionSequence", path) for frame in (frames[0], frames[-1])]
    first, last = (header_value(place, "ImagePositionPatient", path) for place in places)
    plane = functional_group(header, "PlaneOrientationSequence", path)
    axes = header_value(plane, "ImageOrientationPatient", path)
    return placement_of_slices(first, last, axes, path)


def placement_of_slices(first: Any, last: Any, axes: Any, path: Path) -> Placement | None:
    """Return where a stack of slices lies.

    Parameters
    ----------
    first, last : three numbers in mm, or None
        ImagePositionPatient of the first and the last slice.
    axes : six direction cosines, or None
        ImageOrientationPatient.

    Returns
    -------
    Placement, or None where a number is missing or the stack is sheared, so that no spacing and
    axes describe it.

    Raises
    ------
    InputError
        If they are not such numbers.
    """
    if first is None or last is None or axes is None:
        return None
    (start, end), plane = float_arrays([first, last], axes, path)
    along_x, along_y, normal = plane[:3], plane[3:], np.cross(plane[:3], plane[3:])
    along_z = (end - start) / np.linalg.norm(end - start)
    cosine = along_z @ normal
    if not abs(cosine) >= LEAST_COSINE:  # nor if a number is NaN
        return None
    direction = np.column_stack([along_x, along_y, np.sign(cosine) * normal])
    return placement_from_xyz(start.tolist(), direction.ravel().tolist())
