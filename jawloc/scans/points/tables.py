"""Tables of points: CSV files of people, of napari, and of jawloc itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.points import (
    GivenPoint,
    PointFile,
    Space,
    parse_object,
    parse_position,
    point_name,
    scan_name,
)
from jawloc.scans.points.cells import Row, read_cells, text_of_cell
from jawloc.scans.points.review import REVIEW_COLUMNS, Review, numbered_reviews

NO_POSITION = ("not found", "failed")  # a row's status in jawloc's own tables
# (columns of z, y and x, in which space); the first that a table has are used
COLUMNS: tuple[tuple[tuple[str, str, str], Space], ...] = (
    (("z", "y", "x"), "voxels"),
    (("z_voxels", "y_voxels", "x_voxels"), "voxels"),  # jawloc's locations.csv
    (("axis-0", "axis-1", "axis-2"), "voxels"),  # napari
    (("z_mm", "y_mm", "x_mm"), "lps_mm"),
)
_NAMES = {
    *("scan", "object", "label", "status", "axis-3"),
    *REVIEW_COLUMNS,
    *(name for names, _ in COLUMNS for name in names),
}
_WIDE = re.compile(r"(.+)_z")  # jaw_z, jaw_y, jaw_x: a table with one row a scan
_NOT_OBJECTS = ("shape", "size", "spacing", "voxel", "crop")


@dataclass(frozen=True)
class _Columns:
    names: tuple[str, str, str]
    space: Space
    object: Callable[[Row], str]


def read_table(path: Path, own_scan: str) -> PointFile:
    """Read a CSV file of points, one a row.

    A row names its scan in the column `scan`; without this column all are of `own_scan`. An object
    is named, or has its label value, in the column `object` (or `label`). A table with one row a
    scan has the objects in its columns' names: `jaw_z`, `jaw_y`, `jaw_x`. Of a review.csv, the
    positions that were accepted or moved are points.

    Raises
    ------
    InputError
        If it is not a table in UTF-8 with a header, separated by commas, semicolons or tabs, has no
        columns of points or no row, or if a cell is not what its column asks.
    """
    header, rows = read_cells(path, _NAMES)
    if not rows:
        raise InputError(f"{path.name}: a table of points needs a header and a row; it has no row")
    if set(REVIEW_COLUMNS) <= set(header):
        return _reviewed_points(numbered_reviews(header, rows, path), path)
    every = _columns(header, path)
    points, skipped = [], []
    for line, row in rows:
        source = f"{path.name}, line {line}"
        scan = scan_name(text_of_cell(row["scan"].strip())) if "scan" in row else own_scan
        if not scan:
            raise InputError(f"{source}: scan must be the name of a scan; it is empty")
        for columns in every:
            key = parse_object(columns.object(row), source)
            cells = [row[name] for name in columns.names]
            position = parse_position(cells, columns.names, source)
            status = row.get("status", "").strip()
            if position is None or status in NO_POSITION:
                why = repr(status) if status in NO_POSITION else "without a position"
                skipped.append((scan, f"{point_name(key)} is {why} in {source}"))
            else:
                points.append(GivenPoint(scan, key, position, columns.space, source))
    return PointFile(tuple(points), tuple(skipped), () if "scan" in header else tuple(header))


def _reviewed_points(reviews: Sequence[tuple[int, Review]], path: Path) -> PointFile:
    points, skipped = [], []
    for line, review in reviews:
        source = f"{path.name}, line {line}"
        scan, key = scan_name(review.scan), parse_object(review.object or "", source)
        if review.position_voxels_zyx is None:
            skipped.append((scan, f"{point_name(key)} is {review.verdict!r} in {source}"))
        else:
            points.append(GivenPoint(scan, key, review.position_voxels_zyx, "voxels", source))
    return PointFile(tuple(points), tuple(skipped))


def _columns(header: Sequence[str], path: Path) -> list[_Columns]:
    """Return where the points are in each row."""
    if "axis-3" in header or ("axis-0" in header and "axis-2" not in header):
        axes = [name for name in header if name.startswith("axis-")]
        raise InputError(
            f"{path.name}: napari's points must have three axes, axis-0 to axis-2; it has "
            f"{', '.join(axes)}"
        )
    named = next((name for name in ("object", "label") if name in header), None)
    for names, space in COLUMNS:
        if set(names) <= set(header):
            return [_Columns(names, space, lambda row: text_of_cell(row[named]) if named else "")]
    wide, given = [match[1] for name in header if (match := _WIDE.fullmatch(name))], set(header)
    objects = [name for name in wide if {f"{name}_y", f"{name}_x"} <= given]
    every = [_wide_columns(name) for name in objects if name.casefold() not in _NOT_OBJECTS]
    if not every:
        raise InputError(
            f"{path.name}: a table of points needs the columns z, y and x (in voxels), or x_mm, "
            f"y_mm and z_mm (LPS), or those of napari or of jawloc's locations.csv; it has "
            f"{', '.join(header)}"
        )
    return every


def _wide_columns(name: str) -> _Columns:
    return _Columns((f"{name}_z", f"{name}_y", f"{name}_x"), "voxels", lambda _: name)
