"""Where DICOM volumes lie in patient space: from the positions of their slices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Placement, placement_from_xyz
from jawloc.scans.dicom.header import header_value, one_line, read_header
from jawloc.scans.dicom.spacing import first_item, functional_group

# Cosine of the angle between the slices' normal and the way from slice to slice, at least.
LEAST_COSINE = 0.9999


def frames_placement(path: Path) -> Placement | None:
    """Return where a multi-frame DICOM lies; None where its frames have no positions."""
    header = read_header(path)
    frames = header_value(header, "PerFrameFunctionalGroupsSequence", path) or []
    if len(frames) < 2:
        return None
    places = [first_item(frame, "PlanePositionSequence", path) for frame in (frames[0], frames[-1])]
    first, last = (
        None if p is None else header_value(p, "ImagePositionPatient", path) for p in places
    )
    plane = functional_group(header, "PlaneOrientationSequence", path)
    axes = None if plane is None else header_value(plane, "ImageOrientationPatient", path)
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
        If there is something else than such numbers.
    """
    if first is None or last is None or axes is None:
        return None
    try:
        start, end = (np.array([float(v) for v in point]) for point in (first, last))
        plane = np.array([float(v) for v in axes])
        along_x, along_y, normal = plane[:3], plane[3:], np.cross(plane[:3], plane[3:])
        along_z = (end - start) / np.linalg.norm(end - start)
        upright = abs(along_z @ normal) >= LEAST_COSINE
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path.name}: slice positions and orientations must be 3 and 6 numbers; "
            f"{one_line(error)}"
        ) from error
    if not upright:  # nor if a number is NaN
        return None
    direction = np.column_stack([along_x, along_y, np.sign(along_z @ normal) * normal])
    return placement_from_xyz(start.tolist(), direction.ravel().tolist())
