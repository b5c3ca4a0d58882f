"""Points that people gave for scans: where they are in the scan, whatever file they came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jawloc.errors import InputError, comma_hint
from jawloc.geometry import Grid, Placement, Shape, Triple, lps_mm_to_voxels
from jawloc.scans.messages import TO_CHECK
from jawloc.scans.scan import ScanFile, ScanPoint, scan_ending
from jawloc.scans.spacing import SAME_SPACING

# voxels of the scan; mm in patient space (LPS); the same as 3D Slicer has it, where a TIFF, and a
# file without a voxel size, has voxels of another size than the scan's
Space = Literal["voxels", "lps_mm", "slicer_mm"]
_ALIKE = 0.05  # volumes of which one is a larger share of the other can't be told apart
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
    columns: tuple[str, ...] = ()  # of a table without a column of the scans


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
            raise InputError(
                f"{source}: {name} must be a number; it is {given!r}{comma_hint(given)}"
            ) from None
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
    they are voxels times the spacing, as in the files that jawloc writes. If the scan has no
    spacing, 3D Slicer's points were measured in voxels of 1 mm, others in `spacing_mm_zyx`. In 3D
    Slicer's points on a TIFF, mm may also be those of the spacing by which ITK shows it: of the
    two, the smaller volume that holds all points counts.

    Raises
    ------
    InputError
        If a point lies outside the scan, two are of one object, or points are in mm and the voxel
        size is unknown.
    """
    spaces = {}
    for point in given:
        if point.space != "voxels" and point.space not in spaces:
            same = [other.position_zyx for other in given if other.space == point.space]
            found = _as_shown(same, scan) if point.space == "slicer_mm" else None
            spaces[point.space] = found or _patient_space(point, scan, spacing_mm_zyx)
    points = []
    for point in given:
        position = np.array(point.position_zyx)
        if point.space != "voxels":
            placement, grid, _ = spaces[point.space]
            position = _to_voxels(position, grid, placement, scan.path.name)
        z, y, x = position.tolist()
        points.append(ScanPoint(point.object, (z, y, x)))
    for number, mistake in point_mistakes(points, scan.grid.shape_zyx):
        raise InputError(f"{given[number].source}: {mistake}")
    return tuple(points), tuple(note for _, _, note in spaces.values() if note)


def _as_shown(
    points_mm_zyx: Sequence[Triple], scan: ScanFile
) -> tuple[Placement, Grid, str] | None:
    """Return the grid of 3D Slicer's points on a file that ITK may show by another spacing.

    They were clicked on the file itself, or in jawloc's scene or crop, or after somebody had typed
    in the right voxel size, which no markups file tells. Points of a much larger volume seldom all
    lie in the smaller one, so that one goes first. None where there is only one spacing.

    Raise InputError where the scan's own spacing is known, and hardly any smaller or larger, and
    both volumes hold the points.
    """
    shown, shape = scan.shown_spacing_mm_zyx, scan.grid.shape_zyx
    own = scan.grid.spacing_mm_zyx or (1.0, 1.0, 1.0)
    if shown is None or np.allclose(shown, own, rtol=SAME_SPACING):
        return None
    smaller, larger = sorted((shown, own), key=np.prod)
    fits_smaller = lie_in(np.array(points_mm_zyx) / smaller, shape)
    alike = np.prod(smaller) > _ALIKE * np.prod(larger)
    if scan.grid.spacing_mm_zyx is not None and fits_smaller and alike:  # and so the larger one
        raise InputError(
            f"{scan.path.name}: points in mm must fit one voxel size; these fit {_shown(own)} mm "
            f"(z, y, x), the scan's own, and {_shown(shown)} mm, by which 3D Slicer shows it: give "
            f"them in voxels, or click them on the scan as NRRD"
        )
    taken = smaller if fits_smaller else larger
    other = own if taken == shown else shown
    whose = "by which 3D Slicer shows it" if taken == shown else "the scan's own in jawloc"
    note = (
        f"{scan.path.name}: the points' mm were taken for those of voxels of {_shown(taken)} mm "
        f"(z, y, x), {whose}, not of {_shown(other)} mm: {TO_CHECK}"
    )
    return Placement(), Grid(shape, taken), note


def lie_in(voxels_zyx: np.ndarray, shape_zyx: Shape) -> bool:
    """Return whether all points (..., 3) lie in the voxels of a scan."""
    return bool(np.all((voxels_zyx >= -0.5) & (voxels_zyx <= np.asarray(shape_zyx) - 0.5)))


def _patient_space(
    point: GivenPoint, scan: ScanFile, given_spacing: Triple | None
) -> tuple[Placement, Grid, str]:
    """Return the place and grid in which a point's mm were measured, and a note or nothing."""
    name, shape = scan.path.name, scan.grid.shape_zyx
    spacing = scan.grid.spacing_mm_zyx
    if spacing is None and point.space == "slicer_mm":
        note = f"{name} states no voxel size: the points' mm were taken for voxels"
        return Placement(), Grid(shape, (1.0, 1.0, 1.0)), note
    spacing = spacing or given_spacing
    if spacing is None:
        raise InputError(
            f"{point.source}: points in mm need a scan whose voxel size is known; {name} states "
            f"none (--spacing gives it)"
        )
    placement = scan.read_placement()
    if placement is None:
        note = (
            f"{name} states no place in patient space: the points' mm were taken for voxels times "
            f"{spacing} (z, y, x)"
        )
        return Placement(), Grid(shape, spacing), note
    return placement, Grid(shape, spacing), ""


def _to_voxels(position: np.ndarray, grid: Grid, placement: Placement, name: str) -> np.ndarray:
    try:
        return lps_mm_to_voxels(position, grid, placement)
    except np.linalg.LinAlgError:
        raise InputError(
            f"{name}: a scan's axes must point in three directions; they are "
            f"{placement.axes_zyx} (z, y, x)"
        ) from None


def point_mistakes(points: Sequence[ScanPoint], shape_zyx: Shape) -> Iterator[tuple[int, str]]:
    """Yield the number of each point outside a scan, or that is an object's second, and why."""
    seen: dict[int | str, Triple] = {}
    for number, point in enumerate(points):
        if not lie_in(np.asarray(point.voxels_zyx), shape_zyx):
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


def is_object_key(given: Any) -> bool:
    """Return whether this tells which object a point is of: a name, or a label value 1 ... 255."""
    return (isinstance(given, str) and given != "") or (type(given) is int and 1 <= given <= 255)
