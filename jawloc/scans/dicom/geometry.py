"""Spacing and placement of DICOM volumes, from the header or from the slices' positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Placement, Triple, placement_from_xyz
from jawloc.scans.dicom.attributes import has_creator
from jawloc.scans.dicom.header import first_item, functional_group, header_value, read_header
from jawloc.scans.spacing import checked_spacing

# Cosine of the angle between the slices' normal and the direction from slice to slice, at least.
LEAST_COSINE = 0.9999
# By how much of itself a step from slice to slice may differ from the others.
UNEVEN_SHARE = 0.01
# By how much of a step rounding in the header may move a slice; half a step could be a gap.
MOST_ROUNDING_SHARE = 0.25
# Two slices are at one position if they are nearer than this share of the mean distance.
ONE_POSITION_SHARE = 0.01

_PER_FRAME = "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True)
class FrameStack:
    """The frames of a multi-frame DICOM in the order of their positions."""

    order: tuple[int, ...]  # frames of the file, from 0, as slices follow each other
    step_mm: float  # from one position to the next


def frame_stack(header: Dataset, frames: int, path: Path) -> FrameStack | None:
    """Return the order of the first frames by position; None where they have no positions.

    Frames that lie in falling order stay as they are. Nor are positions parsed (a quarter of a
    second for 2000 frames) in a file of jawloc's own, which are in order.
    Raise InputError if a frame has no position or shares one, or they are unevenly spaced.
    """
    if has_creator(header) and _states_one_step(header, path):
        return None
    groups = header_value(header, _PER_FRAME, path) or []
    points = [_position(group, path) for group in groups[:frames]]
    known = [point for point in points if point is not None]
    if not known:
        return None
    if len(known) != frames:
        raise InputError(
            f"{path.name}: all frames or none must have an ImagePositionPatient; {len(known)} of "
            f"{frames} have one"
        )
    plane = functional_group(header, "PlaneOrientationSequence", path)
    axes = header_value(plane, "ImageOrientationPatient", path)
    depths = depths_along_normal(known, axes, path)
    falls = bool(np.all(np.diff(depths) < 0))
    order = list(range(frames)) if falls else np.argsort(depths, kind="stable").tolist()
    names = [f"frame {number + 1}" for number in order]
    _refuse_shared(depths[order], names, path)
    step = even_distance_mm(depths[order], [known[n] for n in order], names, path)
    return FrameStack(tuple(order), step)


def _states_one_step(header: Dataset, path: Path) -> bool:
    """Return whether SpacingBetweenSlices is there, and SliceThickness isn't another number."""
    measures = _measures(header, path)
    z = header_value(measures, "SpacingBetweenSlices", path)
    return z is not None and header_value(measures, "SliceThickness", path) in (None, z)


def one_position_mm(depths: np.ndarray) -> float:
    """Return how near slices at these depths (mm) are that count as at one position."""
    return ONE_POSITION_SHARE * float(np.ptp(depths)) / max(1, len(depths) - 1)


def _refuse_shared(depths: np.ndarray, names: Sequence[str], path: Path) -> None:
    """Raise InputError if two frames, which are in order, are at one position."""
    near = np.abs(np.diff(depths)) <= one_position_mm(depths)
    if near.any():
        first = int(near.argmax())
        raise InputError(
            f"{path.name}: a scan must have one frame at each position; {names[first]} and "
            f"{names[first + 1]} share one, as those of several times or echoes do"
        )


def spacing_mm_zyx(header: Dataset, stack: FrameStack | None, path: Path) -> Triple | None:
    """Return the voxel spacing (z, y, x) in mm, or None where the file has none.

    In-plane: PixelSpacing, from the functional groups or from the top level. Along z:
    SpacingBetweenSlices from the same place, else the distance between the frames' positions, else
    SliceThickness.
    Raise InputError if a spacing is there but is not a positive finite number, or if
    SpacingBetweenSlices is not the distance between the positions.
    """
    measures = _measures(header, path)
    in_plane = header_value(measures, "PixelSpacing", path)
    if in_plane is None:
        return None
    z = header_value(measures, "SpacingBetweenSlices", path)
    thickness = header_value(measures, "SliceThickness", path)
    apart = stack.step_mm if stack else None
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


def _measures(header: Dataset, path: Path) -> Dataset:
    return functional_group(header, "PixelMeasuresSequence", path) or header


def _position(groups: Dataset, path: Path) -> Any:
    """Return a frame's ImagePositionPatient; None where it has none."""
    place = first_item(groups, "PlanePositionSequence", path)
    return header_value(place, "ImagePositionPatient", path)


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


def frames_placement(path: Path, first: int = 0, last: int = -1) -> Placement | None:
    """Return where a multi-frame DICOM lies, of which these frames are the first and last slice.

    None where its frames have no positions.
    """
    header = read_header(path)
    frames = header_value(header, _PER_FRAME, path) or []
    if len(frames) < 2:
        return None
    start, end = (_position(frames[number], path) for number in (first, last))
    plane = functional_group(header, "PlaneOrientationSequence", path)
    axes = header_value(plane, "ImageOrientationPatient", path)
    return placement_of_slices(start, end, axes, path)


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
