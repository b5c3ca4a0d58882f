"""Tables of points: CSV files of people, of napari, and of jawloc itself."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from jawloc.errors import InputError, as_input_error
from jawloc.scans.points import (
    GivenPoint,
    PointFile,
    Space,
    parse_object,
    parse_position,
    point_name,
    scan_name,
)
from jawloc.scans.points.cells import text_of_cell
from jawloc.scans.text_input import read_text

DELIMITERS = ",;\t"
NO_POSITION = ("not found", "failed")  # a row's status in jawloc's own tables
Row = Mapping[str, str]
# (columns of z, y and x, in which space); the first that a table has are used
COLUMNS: tuple[tuple[tuple[str, str, str], Space], ...] = (
    (("z", "y", "x"), "voxels"),
    (("z_voxels", "y_voxels", "x_voxels"), "voxels"),  # jawloc's locations.csv
    (("axis-0", "axis-1", "axis-2"), "voxels"),  # napari
    (("z_mm", "y_mm", "x_mm"), "lps_mm"),
)
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
    scan has the objects in its columns' names: `jaw_z`, `jaw_y`, `jaw_x`.

    Raises
    ------
    InputError
        If it is not a table in UTF-8 with a header, separated by commas, semicolons or tabs, has no
        columns of points or no row, or if a cell is not what its column asks.
    """
    header, rows = _read_rows(path)
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
    every = [_wide_columns(name) for name in objects if name not in _NOT_OBJECTS]
    if not every:
        raise InputError(
            f"{path.name}: a table of points needs the columns z, y and x (in voxels), or x_mm, "
            f"y_mm and z_mm (LPS), or those of napari or of jawloc's locations.csv; it has "
            f"{', '.join(header)}"
        )
    return every


def _wide_columns(name: str) -> _Columns:
    return _Columns((f"{name}_z", f"{name}_y", f"{name}_x"), "voxels", lambda _: name)


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, Row]]]:
    """Return the names of the columns, and each row that is not empty with its line's number."""
    damaged = as_input_error(
        f"{path.name}: a table must be text in UTF-8", UnicodeDecodeError, csv.Error
    )
    with damaged, StringIO(read_text(path, "a table"), newline="") as file:
        first = file.readline()
        delimiter = max(DELIMITERS, key=first.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise InputError(f"{path.name}: a table's columns must differ; two are called {twice[0]!r}")
    if not lines:
        raise InputError(f"{path.name}: a table of points needs a header and a row; it has no row")
    for line, cells in lines:
        if len(cells) != len(header):
            raise InputError(
                f"{path.name}, line {line}: a row must have a cell for each of the "
                f"{len(header)} columns; it has {len(cells)}"
            )
    return header, [(line, dict(zip(header, cells, strict=True))) for line, cells in lines]
