"""Points that were placed in 3D Slicer: markups files, .mrk.json and the older .fcsv."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Triple
from jawloc.scans.points import GivenPoint, PointFile, parse_object, parse_position, point_name
from jawloc.scans.spacing import length_in_mm
from jawloc.scans.text_input import read_text

# .fcsv files of before 2020 give the coordinate system as a number
SYSTEMS = {"LPS": "LPS", "RAS": "RAS", "0": "RAS", "1": "LPS"}
FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
# the names that 3D Slicer gives to points that nobody named: those of their list and a number
_LIST = r"(F|MarkupsFiducial|PointList)(_\d+)?"

# the end of a description that `jawloc locate` wrote
_NOT_FOUND = re.compile(r": not found(, radius [^:]*)?$")


def read_markups(path: Path, own_scan: str) -> PointFile:
    """Read the points of a .mrk.json file as points of `own_scan`, named by their labels.

    Raise InputError if it is not such a file, or its markups aren't points.
    """
    # of a text that is nested too deeply, Python raises a RecursionError
    damaged = as_input_error(
        f"{path.name}: a markups file must be JSON", ValueError, RecursionError
    )
    with damaged:
        content = json.loads(read_text(path, "a markups file"))
    lists = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(lists, list) or not all(isinstance(markup, dict) for markup in lists):
        raise InputError(f"{path.name}: a markups file must have a list of markups; it has none")
    points, skipped = [], []
    for markup in lists:
        if markup.get("type", "Fiducial") != "Fiducial":
            raise InputError(
                f"{path.name}: markups must be points (type Fiducial); one is {markup['type']!r}"
            )
        system = _system(str(markup.get("coordinateSystem", "LPS")), path)
        scale = _scale(markup.get("coordinateUnits", "mm"), path)
        for label, position, status in _control_points(markup, path):
            source = f"{path.name}, point {label!r}"
            key = parse_object("" if _is_automatic(label, own_scan) else label, source)
            if position is None or status:
                why = status or "without a position"
                skipped.append((own_scan, f"{point_name(key)} is {why} in {source}"))
            else:
                z, y, x = (scale * value for value in _lps(position, system))
                points.append(GivenPoint(own_scan, key, (z, y, x), "slicer_mm", source))
    return PointFile(tuple(points), tuple(skipped))


def _control_points(markup: dict[str, Any], path: Path) -> Iterator[tuple[str, Triple | None, str]]:
    """Yield each control point's label, its position (z, y, x) or None, and `'not found'` or ''."""
    given = markup.get("controlPoints")
    if not isinstance(given, list) or not all(isinstance(point, dict) for point in given):
        raise InputError(f"{path.name}: markups must have a list of controlPoints; got {given!r}")
    for point in given:
        label = str(point.get("label", ""))
        source = f"{path.name}, point {label!r}"
        position = point.get("position")
        if point.get("positionStatus", "defined") != "defined" or position is None:
            yield label, None, ""
            continue
        if not isinstance(position, list) or len(position) != 3:
            raise InputError(f"{source}: a position must be three numbers; it is {position!r}")
        status = "'not found'" if _is_not_found(point) else ""
        yield label, parse_position(position[::-1], ("z", "y", "x"), source), status


def _is_not_found(point: dict[str, Any]) -> bool:
    """Return whether a point is one that jawloc did not find, as in the file that it wrote.

    3D Slicer keeps the description of a point that somebody has put right, and adds an orientation.
    """
    description = str(point.get("description", ""))
    return "orientation" not in point and _NOT_FOUND.search(description) is not None


def read_fcsv(path: Path, own_scan: str) -> PointFile:
    """Read the points of an .fcsv file as points of `own_scan`, named by their labels.

    Raise InputError if it is not such a file, or doesn't state its coordinate system.
    """
    with as_input_error(f"{path.name}: an .fcsv file must be text in UTF-8", UnicodeDecodeError):
        lines = read_text(path, "an .fcsv file").splitlines()
    comments = [line.lstrip("# ").partition("=") for line in lines if line[:1] == "#"]
    about = {key.strip(): value.strip() for key, equals, value in comments if equals}
    if "CoordinateSystem" not in about:
        raise InputError(
            f"{path.name}: an .fcsv file must state its CoordinateSystem, LPS or RAS; it has none"
        )
    system = _system(about["CoordinateSystem"], path)
    columns = [name.strip() for name in about.get("columns", FCSV_COLUMNS).split(",")]
    if not {"x", "y", "z", "label"} <= set(columns):
        raise InputError(
            f"{path.name}: an .fcsv file must have the columns x, y, z and label; it has "
            f"{', '.join(columns)}"
        )
    points, skipped = [], []
    for number, line in enumerate(lines, 1):
        if line[:1] == "#" or not line.strip():
            continue
        source = f"{path.name}, line {number}"
        with as_input_error(f"{source}: a line must be cells separated by commas", csv.Error):
            cells = next(csv.reader([line]))
        row = dict(zip(columns, cells, strict=False))
        label = row.get("label", "")
        key = parse_object("" if _is_automatic(label, own_scan) else label, source)
        position = parse_position([row.get(axis) for axis in "zyx"], ("z", "y", "x"), source)
        if position is None:
            skipped.append((own_scan, f"{point_name(key)} is without a position in {source}"))
        else:
            lps = _lps(position, system)
            points.append(GivenPoint(own_scan, key, lps, "slicer_mm", source))
    return PointFile(tuple(points), tuple(skipped))


def _system(given: str, path: Path) -> str:
    if given.upper() not in SYSTEMS:
        raise InputError(f"{path.name}: its coordinate system must be LPS or RAS; it is {given!r}")
    return SYSTEMS[given.upper()]


def _scale(given: object, path: Path) -> float:
    """Return the mm in the unit of a markups file, which is one text or one for each axis."""
    units = given if isinstance(given, list) else [given]
    scale = length_in_mm(str(units[0])) if len(set(map(str, units))) == 1 else None
    if scale is None:
        raise InputError(
            f"{path.name}: its coordinateUnits must be one unit of length (nm, um, mm, cm, m, "
            f"inch); they are {given!r}"
        )
    return scale


def _lps(position_zyx: Triple, system: str) -> Triple:
    z, y, x = position_zyx
    return (z, y, x) if system == "LPS" else (z, -y, -x)


def _is_automatic(label: str, list_name: str) -> bool:
    pattern = rf"({_LIST}|{re.escape(list_name)})[-_]\d+"
    return re.fullmatch(pattern, label.strip()) is not None
