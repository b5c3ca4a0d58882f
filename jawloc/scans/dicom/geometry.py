"""Spacing and placement of DICOM volumes, from the header or from the slices' positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Placement, Triple, placement_from_xyz
from jawloc.scans.dicom.header import first_item, functional_group, header_value, read_header

# Cosine of the angle between the slices' normal and the direction from slice to slice, at least.
LEAST_COSINE = 0.9999


def spacing_mm_zyx(header: Dataset, path: Path) -> Triple | None:
    """Return the voxel spacing (z, y, x) in mm, or None where the file has none.

    In-plane: PixelSpacing, from the functional groups or from the top level. Along z:
    SpacingBetweenSlices from the same place, else the distance between the frames' positions (a
    quarter of a second to parse for 2000 frames), else SliceThickness.
    Raise InputError if a spacing is there but is not a positive finite number.
    """
    measures = functional_group(header, "PixelMeasuresSequence", path) or header
    in_plane = header_value(measures, "PixelSpacing", path)
    if in_plane is None:
        return None
    z = header_value(measures, "SpacingBetweenSlices", path)
    z = _frame_distance_mm(header, path) if z is None else z
    z = header_value(measures, "SliceThickness", path) if z is None else z
    if z is None:
        return None
    return checked_spacing([z, *np.atleast_1d(np.asarray(in_plane, dtype=object))], path)


def checked_spacing(values: Iterable[Any], path: Path) -> Triple:
    """Return three values as a spacing in mm; InputError if they aren't positive and finite."""
    given = tuple(values)
    with suppress(TypeError, ValueError):
        given = z, y, x = tuple(float(value) for value in given)
        if all(math.isfinite(value) and value > 0 for value in given):
            return z, y, x
    raise InputError(
        f"{path.name}: the spacing (z, y, x) in mm must be positive and finite; it is {given}"
    )


def _frame_distance_mm(header: Dataset, path: Path) -> float | None:
    """Return the distance between consecutive frames' positions; None where one is missing."""
    frames = header_value(header, "PerFrameFunctionalGroupsSequence", path) or []
    places = [first_item(frame, "PlanePositionSequence", path) for frame in frames]
    points = [header_value(place, "ImagePositionPatient", path) for place in places]
    if len(points) < 2 or None in points:
        return None
    plane = functional_group(header, "PlaneOrientationSequence", path)
    axes = header_value(plane, "ImageOrientationPatient", path)
    return even_distance_mm(depths_along_normal(points, axes, path), path)


def _float_arrays(points: Sequence[Any], axes: Any, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return slice positions (n, 3) and orientation (6,) as floats; InputError if they aren't."""
    rule = f"{path.name}: slice positions and orientations must be 3 and 6 numbers"
    with as_input_error(rule, TypeError, ValueError):
        positions = np.array([[float(v) for v in point] for point in points])
        plane = np.array([float(v) for v in axes])
    if positions.shape[1:] != (3,) or plane.shape != (6,):
        raise InputError(f"{rule}; their shapes are {positions.shape} and {plane.shape}")
    return positions, plane


def depths_along_normal(points: Sequence[Any], axes: Any, path: Path) -> np.ndarray:
    """Project positions (n, 3) in mm on the normal of the slice plane; returns n depths."""
    positions, plane = _float_arrays(points, axes or (1, 0, 0, 0, 1, 0), path)
    return positions @ np.cross(plane[:3], plane[3:])


def even_distance_mm(depths: np.ndarray, path: Path) -> float:
    """Return the step between depths, which must be even within 1 %; InputError otherwise."""
    steps = np.abs(np.diff(depths))
    typical = float(np.median(steps))
    if not np.isfinite(typical) or typical <= 0 or np.ptp(steps) > 0.02 * typical:
        raise InputError(
            f"{path.name}: slices must be evenly spaced; their distances are "
            f"{steps.min():.4g} to {steps.max():.4g} mm"
        )
    return float(np.mean(steps))


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
    """Return where a stack lies, from its first and last ImagePositionPatient and its orientation.

    None where one is missing or the stack is sheared, so that no spacing and axes describe it.
    """
    if first is None or last is None or axes is None:
        return None
    (start, end), plane = _float_arrays([first, last], axes, path)
    along_x, along_y, normal = plane[:3], plane[3:], np.cross(plane[:3], plane[3:])
    along_z = (end - start) / np.linalg.norm(end - start)
    cosine = along_z @ normal
    if not abs(cosine) >= LEAST_COSINE:  # nor if a number is NaN
        return None
    direction = np.column_stack([along_x, along_y, np.sign(cosine) * normal])
    return placement_from_xyz(start.tolist(), direction.ravel().tolist())
