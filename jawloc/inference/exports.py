"""Positions as files for people and other programs: CSV, JSON, 3D Slicer and napari."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from jawloc.errors import InputError
from jawloc.geometry import Triple
from jawloc.inference.crop import CropBox
from jawloc.inference.locator import Localisation

FAILED = "failed"
DECIMALS = 6  # of a voxel or mm
SLICER_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
)


SINCE_0_1_0 = ("radius_note", "heatmap_width_voxels")  # columns that its tables lack


@dataclass(frozen=True)
class Row:
    """A line of the table: one object of one scan, or a scan that failed (object None).

    Positions are in voxels of the full-size scan, z_mm, y_mm, x_mm those times the spacing, the
    LPS ones in patient space; None is an empty cell. The spread is what the probability map is
    wider by than the Gaussian that it was trained to be, heatmap_width_voxels its whole width;
    radius_note says why there is no radius, where there is none. The order of the fields is that
    of the columns.
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
    """Make the row of an object that was found.

    Parameters
    ----------
    lps_mm : (z, y, x) in patient space, or None
    about : the columns crop_file, picture_file, seconds, path, model and key
    """
    (z, y, x), mm = found.point_voxels, found.point_mm or (None, None, None)
    lps = (None, None, None) if lps_mm is None else tuple(lps_mm)
    crop_z, crop_y, crop_x = window.start_zyx
    values: dict[str, Any] = {
        "scan": found.scan_id,
        "object": found.object_name,
        "z_voxels": z,
        "y_voxels": y,
        "x_voxels": x,
        "z_mm": mm[0],
        "y_mm": mm[1],
        "x_mm": mm[2],
        "z_lps_mm": lps[0],
        "y_lps_mm": lps[1],
        "x_lps_mm": lps[2],
        "spread_voxels": found.spread_voxels,
        "heatmap_width_voxels": found.width_voxels,
        "radius_voxels": found.radius_voxels,
        "radius_mm": found.radius_mm,
        "confidence": found.confidence,
        "status": found.status,
        "crop_z": crop_z,
        "crop_y": crop_y,
        "crop_x": crop_x,
        "crop_fit": window.fit,
        "reason": found.reason or None,
        "radius_note": found.radius_note or None,
        **about,
    }
    return Row(**{key: _rounded(value) for key, value in values.items()})


def failed_row(scan: str, reason: str, about: Mapping[str, Any]) -> Row:
    """Make the row of a scan that could not be located; `about` as for `located_row`."""
    empty: dict[str, Any] = dict.fromkeys(COLUMNS)
    said = {"scan": scan, "status": FAILED, "reason": " ".join(reason.split())}
    return Row(**{**empty, **{k: _rounded(v) for k, v in about.items()}, **said})


def _rounded(value: Any) -> Any:
    return round(value, DECIMALS) if isinstance(value, float) else value


def csv_text(rows: Iterable[Row]) -> str:
    """Return the table as CSV, with an empty cell for None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def json_text(rows: Iterable[Row]) -> str:
    """Return the table as a JSON list with an object a row, whose keys are the columns."""
    return json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n"


def read_rows(path: Path) -> list[Row]:
    """Read a table that `csv_text` made.

    Raises
    ------
    InputError
        If it is something else.
    """
    types = get_type_hints(Row)
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = list(csv.DictReader(file))
        for row in table:
            row.update({name: "" for name in SINCE_0_1_0 if name not in row})
        return [Row(**{name: _value(row[name], types[name]) for name in COLUMNS}) for row in table]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise InputError(
            f"{path}: --resume needs the table as jawloc wrote it; {type(error).__name__}: {error}"
        ) from error


def _value(text: str, kind: Any) -> Any:
    if kind is str:
        return text
    if text == "":
        return None
    return float(text) if kind == float | None else int(text) if kind == int | None else text


def slicer_text(rows: Sequence[Row]) -> str:
    """Return a scan's positions as a 3D Slicer markups file, in LPS mm.

    Where the file has no place in patient space, they are voxels times the spacing, and where it
    has no spacing either, voxels: that is where 3D Slicer puts the voxels of such a file.
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "axis-0", "axis-1", "axis-2", "scan", "object", "status"])
    found = [row for row in rows if row.status != FAILED]
    for index, row in enumerate(found):
        point = (row.z_voxels, row.y_voxels, row.x_voxels)
        writer.writerow([index, *point, row.scan, row.object, row.status])
    return text.getvalue()
