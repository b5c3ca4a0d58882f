"""Spacing and placement of DICOM volumes, from the header or from the slices' positions."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Placement, Triple, placement_from_xyz
from jawloc.scans.dicom.header import first_item, functional_group, header_value, read_header
from jawloc.scans.spacing import checked_spacing

# Cosine of the angle between the slices' normal and the direction from slice to slice, at least.
LEAST_COSINE = 0.9999
# By how much of itself a step from slice to slice may differ from the others.
UNEVEN_SHARE = 0.01
# By how much of a step rounding in the header may move a slice; half a step could be a gap.
MOST_ROUNDING_SHARE = 0.25


def spacing_mm_zyx(header: Dataset, path: Path) -> Triple | None:
    """Return the voxel spacing (z, y, x) in mm, or None where the file has none.

    In-plane: PixelSpacing, from the functional groups or from the top level. Along z:
    SpacingBetweenSlices from the same place, else the distance between the frames' positions (a
    quarter of a second to parse for 2000 frames), else SliceThickness.
    Raise InputError if a spacing is there but is not a positive finite number, or if
    SpacingBetweenSlices is neither SliceThickness nor the distance between the positions.
    """
    measures = functional_group(header, "PixelMeasuresSequence", path) or header
    in_plane = header_value(measures, "PixelSpacing", path)
    if in_plane is None:
        return None
    z = header_value(measures, "SpacingBetweenSlices", path)
    thickness = header_value(measures, "SliceThickness", path)
    positions_decide = z is None or (thickness is not None and z != thickness)
    apart = _frame_distance_mm(header, path) if positions_decide else None
    z = next((given for given in (z, apart, thickness) if given is not None), None)
    if z is None:
        return None
    spacing = checked_spacing([z, *np.atleast_1d(np.asarray(in_plane, dtype=object))], path)
    if apart is not None and abs(spacing[0] - apart) > UNEVEN_SHARE * apart:
        raise InputError(
            f"{path.name}: SpacingBetweenSlices must be the distance between the frames' "
            f"positions, {apart:g} mm; it is {spacing[0]:g} mm"
        )
    return spacing


def _frame_distance_mm(header: Dataset, path: Path) -> float | None:
    """Return the distance between consecutive frames' positions; None where one is missing."""
    frames = header_value(header, "PerFrameFunctionalGroupsSequence", path) or []
    places = [first_item(frame, "PlanePositionSequence", path) for frame in frames]
    points = [header_value(place, "ImagePositionPatient", path) for place in places]
    if len(points) < 2 or None in points:
        return None
    plane = functional_group(header, "PlaneOrientationSequence", path)
    axes = header_value(plane, "ImageOrientationPatient", path)
    names = [f"frame {number}" for number in range(1, len(points) + 1)]
    return even_distance_mm(depths_along_normal(points, axes, path), points, names, path)


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


def even_distance_mm(
    depths: np.ndarray, points: Sequence[Any], names: Sequence[str], path: Path
) -> float:
    """Return the step between slices in their order.

    The steps may differ by 1 % of their median, or the positions from even ones by the last digit
    that they are written with, up to a quarter of a step; a missing slice exceeds both.

    Parameters
    ----------
    depths : of the slices along their normal, in mm
    points, names : of the slices: positions as they are written, and what errors call them

    Raises
    ------
    InputError
        If the steps differ by more: names the largest gap.
    """
    steps = np.diff(depths)
    typical = float(np.median(np.abs(steps)))
    in_order = np.isfinite(typical) and typical > 0 and abs(np.sign(steps).sum()) == len(steps)
    if in_order and np.ptp(np.abs(steps)) <= 2 * UNEVEN_SHARE * typical:
        return float(np.mean(np.abs(steps)))
    if in_order:
        uneven = np.abs(depths - np.linspace(depths[0], depths[-1], len(depths))).max()
        if uneven <= min(_last_digit_mm(points), MOST_ROUNDING_SHARE * typical):
            return float(np.mean(np.abs(steps)))
    raise InputError(f"{path.name}: slices must be evenly spaced; {_gap(steps, typical, names)}")


def _gap(steps: np.ndarray, typical: float, names: Sequence[str]) -> str:
    """Describe the step that differs most from the others."""
    worst = int(np.argmax(np.abs(steps - np.copysign(typical, np.median(steps)))))
    between = f"from {names[worst]} to {names[worst + 1]}"
    missing = abs(steps[worst]) / typical - 1 if typical > 0 else 0.0
    several = round(missing) if np.isfinite(missing) else 0
    said = ""
    if several >= 1 and abs(missing - several) < 2 * MOST_ROUNDING_SHARE:
        said = f" ({several} slice{'s' if several > 1 else ''} missing)"
    return f"{between} it is {steps[worst]:.4g} mm, between most others {typical:.4g} mm{said}"


def _last_digit_mm(points: Sequence[Any]) -> float:
    """Return the worth of the last decimal place with which positions are written."""
    places = [Decimal(str(value)).as_tuple().exponent for point in points for value in point]
    return 10.0 ** min(place for place in places if isinstance(place, int))


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
