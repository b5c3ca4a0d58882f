"""Positions as files for people and other programs: CSV, JSON, 3D Slicer and napari."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from jawloc.errors import InputError
from jawloc.geometry import Triple
from jawloc.inference.crop import CropBox
from jawloc.inference.locator import Localisation
from jawloc.scans.points.cells import as_cell, text_of_cell

FAILED = "failed"
DECIMALS = 6  # of a voxel or mm
LATER_COLUMNS = ("radius_note", "heatmap_width_voxels")  # which tables of jawloc 0.1.0 lack
SLICER_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)


@dataclass(frozen=True)
class Row:
    """A row of the table: one object of one scan, or a scan that failed (object None).

    Positions are in voxels of the full-size scan, z_mm, y_mm, x_mm those times the spacing, the
    LPS ones in patient space; None is an empty cell. The spread is by how much the probability map
    is wider than the Gaussian of the training, heatmap_width_voxels its whole width; radius_note
    is the reason where there is no radius. The fields are in the order of the columns.
    """

    scan: str
    object: str | None
    z_voxels: float | None
    y_voxels: float | None
    x_voxels: float | None
    z_mm: float | None
    y_mm: float | None
    x_mm: float | None
    spread_voxels: float | None
    radius_voxels: float | None
    radius_mm: float | None
    confidence: float | None
    status: str
    crop_z: int | None
    crop_y: int | None
    crop_x: int | None
    seconds: float | None
    crop_fit: str | None
    z_lps_mm: float | None
    y_lps_mm: float | None
    x_lps_mm: float | None
    crop_file: str | None
    picture_file: str | None
    reason: str | None
    radius_note: str | None
    heatmap_width_voxels: float | None
    path: str
    model: str
    key: str  # changes with the scan's file, the model and what is written

    @property
    def point_mm(self) -> Triple | None:
        """Return the position (z, y, x) in patient space, or else in voxels times spacing."""
        for z, y, x in (
            (self.z_lps_mm, self.y_lps_mm, self.x_lps_mm),
            (self.z_mm, self.y_mm, self.x_mm),
        ):
            if z is not None and y is not None and x is not None:
                return z, y, x
        return None


COLUMNS = tuple(field.name for field in fields(Row))


def located_row(
    found: Localisation,
    window: CropBox,
    lps_mm: Sequence[float] | None,
    about: Mapping[str, Any],
) -> Row:
    """Return the row of an object that was found.

    Parameters
    ----------
    lps_mm : (z, y, x) in patient space, or None
    about : the columns crop_file, picture_file, seconds, path, model and key
    """
    values: dict[str, Any] = {
        "scan": found.scan_id,
        "object": found.object_name,
        "heatmap_width_voxels": found.width_voxels,
        "crop_fit": window.fit,
        "reason": found.reason or None,
        "radius_note": found.radius_note or None,
        **by_axis("{}_voxels", found.point_voxels),
        **by_axis("{}_mm", found.point_mm),
        **by_axis("{}_lps_mm", lps_mm),
        **by_axis("crop_{}", window.start_zyx),
        **about,
    }
    for column in ("spread_voxels", "radius_voxels", "radius_mm", "confidence", "status"):
        values[column] = getattr(found, column)
    return Row(**rounded(values))


def failed_row(scan: str, reason: str, about: Mapping[str, Any]) -> Row:
    """Return the row of a scan that could not be located; `about` as for `located_row`."""
    known = {**about, "scan": scan, "status": FAILED, "reason": " ".join(reason.split())}
    return Row(**rounded({column: known.get(column) for column in COLUMNS}))


def by_axis(column: str, point: Sequence[float] | None) -> dict[str, float | None]:
    """Return a point (z, y, x) as three columns, whose names have the axis in place of `{}`."""
    return {
        column.format(axis): None if point is None else point[i] for i, axis in enumerate("zyx")
    }


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its floats rounded."""
    return {k: round(v, DECIMALS) if isinstance(v, float) else v for k, v in row.items()}


def table_text(rows: Sequence[Any], columns: Sequence[str] | None = None) -> str:
    """Return rows (mappings or dataclasses) as CSV; what is None or missing is an empty cell.

    Texts, but not numbers, are written as `as_cell` has them, so that none becomes a formula.

    Parameters
    ----------
    columns : in this order; None: every key of any row
    """
    import pandas  # type: ignore[import-untyped]  # takes half a second

    table = pandas.DataFrame(rows, columns=columns, dtype=object)  # whole numbers stay whole
    for name in table:
        cells = [as_cell(value) if isinstance(value, str) else value for value in table[name]]
        table[name] = pandas.Series(cells, table.index, dtype=object)
    # a carriage return, which the writer leaves bare, would end the row for a reader
    bare = any("\r" in value for value in table.to_numpy().flat if isinstance(value, str))
    quoting = csv.QUOTE_NONNUMERIC if bare else csv.QUOTE_MINIMAL
    return str(table.to_csv(index=False, lineterminator="\n", quoting=quoting))


def csv_text(rows: Iterable[Row]) -> str:
    """Return the table as CSV."""
    return table_text([*rows], COLUMNS)


def json_text(rows: Iterable[Row]) -> str:
    """Return the table as a JSON list of one object per row, whose keys are the columns."""
    return json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n"


def read_rows(path: Path, need: str = "--resume needs") -> list[Row]:
    """Read a table that `csv_text` made.

    Raises
    ------
    InputError
        If the file is not such a table; `need` begins the rule.
    """
    import pandas  # as above

    types = get_type_hints(Row)
    about: dict[str, Any] = {"keep_default_na": False, "encoding_errors": "surrogateescape"}
    try:
        _refuse_other_columns([*pandas.read_csv(path, nrows=0, **about)], path, need)
        table = pandas.read_csv(path, dtype=object, **about)
        table = table.assign(**{name: "" for name in LATER_COLUMNS if name not in table})
        return [
            Row(**{name: _value(row[name], types[name]) for name in COLUMNS})
            for row in table.to_dict("records")
        ]
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path}: {need} the table as jawloc wrote it; {type(error).__name__}: {error}"
        ) from error


def _refuse_other_columns(columns: Sequence[str], path: Path, need: str) -> None:
    """Raise InputError for a table that lacks a column, or that has no commas between them."""
    missing = [name for name in COLUMNS if name not in (*columns, *LATER_COLUMNS)]
    if not missing:
        return
    found = f"it has no column {missing[0]}"
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if separator in columns[0]:
            found = f"its columns are separated by {name} instead of commas"
    raise InputError(f"{path}: {need} the table as jawloc wrote it; {found}")


def _value(cell: str, kind: Any) -> Any:
    text = text_of_cell(cell) if kind in (str, str | None) else cell
    if kind is str:
        return text
    if text == "":
        return None
    return float(text) if kind == float | None else int(text) if kind == int | None else text


def slicer_text(rows: Sequence[Row]) -> str:
    """Return a scan's positions as a 3D Slicer markups file, in LPS mm.

    For a file without a place in patient space they are voxels times the spacing, and without a
    spacing voxels, which is where 3D Slicer shows such a file.
    """
    points = []
    for number, row in enumerate(rows, 1):
        voxels = (row.z_voxels, row.y_voxels, row.x_voxels)
        radius = "" if row.radius_mm is None else f", radius {row.radius_mm:.3f} mm"
        points.append(
            {
                "id": str(number),
                "label": row.object,
                "description": f"{row.scan}: {row.status}{radius}",
                "position": list(row.point_mm or voxels)[::-1],
                "selected": True,
                "locked": False,
                "visibility": True,
                "positionStatus": "defined",
            }
        )
    markups = {
        "type": "Fiducial",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "controlPoints": points,
    }
    content = {"@schema": SLICER_SCHEMA, "markups": [markups]}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def napari_text(rows: Iterable[Row]) -> str:
    """Return positions in voxels as a CSV that napari opens as a layer of points.

    Its axes are the array's, (z, y, x); scan, object and status become properties of the points.
    """
    found = [row for row in rows if row.status != FAILED]
    table = [
        (index, row.z_voxels, row.y_voxels, row.x_voxels, row.scan, row.object, row.status)
        for index, row in enumerate(found)
    ]
    return table_text(table, ["index", "axis-0", "axis-1", "axis-2", "scan", "object", "status"])
