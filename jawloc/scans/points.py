"""Points that people gave for scans: where they are in the scan, whatever file they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, Triple, lps_mm_to_voxels
from jawloc.scans.dicom.points import point_mistakes
from jawloc.scans.scan import ScanFile, ScanPoint, scan_ending

# voxels of the scan; mm in patient space (LPS); the same as 3D Slicer has it, where a file without
# a voxel size has voxels of 1 mm
Space = Literal["voxels", "lps_mm", "slicer_mm"]
UNNAMED = 1  # the label value of a point that has neither a name nor a label value


@dataclass(frozen=True)
class GivenPoint:
    """One point as a file gives it."""

    scan: str  # the scan's id, or that with a suffix
    object: int | str  # a label value or the object's name
    position_zyx: Triple
    space: Space
    source: str  # for messages: the file and the line or label in it


@dataclass(frozen=True)
class PointFile:
    """The points in a file, and what in it is no point."""

    points: tuple[GivenPoint, ...]
    skipped: tuple[tuple[str, str], ...] = ()  # id of the scan, and why it has no point there


def parse_object(text: str, source: str) -> int | str:
    """Return a text as label value or name; InputError if it is a number but no label value."""
    text = text.strip()
    if not text:
        return UNNAMED
    try:
        number = float(text)  # a table program may have written 2 as 2.0
    except ValueError:
        return text
    if number not in range(1, 256):
        raise InputError(f"{source}: a label value must be a whole number 1 to 255; it is {text!r}")
    return int(number)


def parse_position(texts: Sequence[object], names: Sequence[str], source: str) -> Triple | None:
    """Return three numbers (z, y, x); None if all are missing: empty or not a number (nan).

    Raise InputError, with the columns' names, if only some are missing or one is no finite number.
    """
    numbers = []
    for name, given in zip(names, texts, strict=True):
        text = "nan" if given is None or not str(given).strip() else str(given)
        try:
            numbers.append(float(text))
        except ValueError:
            raise InputError(f"{source}: {name} must be a number; it is {given!r}") from None
        if np.isinf(numbers[-1]):
            raise InputError(f"{source}: {name} must be finite; it is {given!r}")
    missing = [name for name, number in zip(names, numbers, strict=True) if np.isnan(number)]
    if len(missing) == 3:
        return None
    if missing:
        every = ", ".join(names)
        raise InputError(f"{source}: a point needs all of {every}; {missing[0]} is missing")
    return numbers[0], numbers[1], numbers[2]


def point_name(key: int | str) -> str:
    """Return what a message calls a point that is of this object."""
    return repr(key) if isinstance(key, str) else "the point"


def scan_name(name: str) -> str:
    """Return the scan's id in a scan's file name or path, or in the id itself."""
    last = Path(name.strip()).name
    ending = scan_ending(Path(last))
    return last[: -len(ending)] if ending else last


def place_points(
    given: Sequence[GivenPoint], scan: ScanFile, spacing_mm_zyx: Triple | None = None
) -> tuple[tuple[ScanPoint, ...], tuple[str, ...]]:
    """Return the points of one scan in its voxels, and notes for the user to check.

    Points in mm are mapped by the scan's own spacing and place in patient space. Without a place
    they are voxels times the spacing, as in the files that jawloc writes; `spacing_mm_zyx` is used
    if the scan has no spacing.

    Raises
    ------
    InputError
        If a point lies outside the scan, two are of one object, or points are in mm and the voxel
        size is unknown.
    """
    placement, grid, notes = None, scan.grid, list[str]()
    if any(point.space != "voxels" for point in given):
        placement, grid, notes = _patient_space(given, scan, spacing_mm_zyx)
    points = []
    for point in given:
        position = np.array(point.position_zyx)
        if point.space != "voxels":
            position = _to_voxels(position, grid, placement or Placement(), scan.path.name)
        z, y, x = position.tolist()
        points.append(ScanPoint(point.object, (z, y, x)))
    for number, mistake in point_mistakes(points, scan.grid.shape_zyx):
        raise InputError(f"{given[number].source}: {mistake}")
    return tuple(points), tuple(notes)


def _patient_space(
    given: Sequence[GivenPoint], scan: ScanFile, spacing_mm_zyx: Triple | None
) -> tuple[Placement | None, Grid, list[str]]:
    placement, spacing = scan.read_placement(), scan.grid.spacing_mm_zyx or spacing_mm_zyx
    name, shape = scan.path.name, scan.grid.shape_zyx
    in_mm = [point for point in given if point.space == "lps_mm"]
    if spacing is None and in_mm:
        raise InputError(
            f"{in_mm[0].source}: points in mm need a scan whose voxel size is known; {name} states "
            f"none (--spacing gives it)"
        )
    if spacing is None:
        note = f"{name} states no voxel size: the points' mm were taken for voxels"
        return None, Grid(shape, (1.0, 1.0, 1.0)), [note]
    if placement is None:
        note = (
            f"{name} states no place in patient space: the points' mm were taken for voxels times "
            f"{spacing} (z, y, x)"
        )
        return None, Grid(shape, spacing), [note]
    return placement, Grid(shape, spacing), []


def _to_voxels(position: np.ndarray, grid: Grid, placement: Placement, name: str) -> np.ndarray:
    try:
        return lps_mm_to_voxels(position, grid, placement)
    except np.linalg.LinAlgError:
        raise InputError(
            f"{name}: a scan's axes must point in three directions; they are "
            f"{placement.axes_zyx} (z, y, x)"
        ) from None
