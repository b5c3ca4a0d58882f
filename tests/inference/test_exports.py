"""Tables and files for other programs: the numbers come back, and the formats are the formats."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from jawloc.errors import InputError
from jawloc.inference.crop import CropBox
from jawloc.inference.exports import (
    COLUMNS,
    Row,
    csv_text,
    failed_row,
    json_text,
    located_row,
    napari_text,
    read_rows,
    slicer_text,
    table_text,
)
from jawloc.inference.locator import Localisation
from jawloc.reporting.text_files import write_text
from jawloc.scans.points.tables import read_table

FIRST_COLUMNS = (
    "scan,object,z_voxels,y_voxels,x_voxels,z_mm,y_mm,x_mm,spread_voxels,radius_voxels,radius_mm,"
    "confidence,status,crop_z,crop_y,crop_x,seconds"
)
ABOUT = {
    "crop_file": "imgs/a.tif",
    "picture_file": None,
    "seconds": 1.5,
    "path": "/data/a, b.tif",
    "model": "m",
    "key": "k",
}
WINDOW = CropBox((0, -4, 12), (8, 8, 8), "padded")


def row(mm=(0.2, 0.4, 0.6), lps=(5.0, 6.0, 7.0), **changes) -> Row:
    found = Localisation("a", "jaw", (10.0, 20.25, 30.123456789), mm, 1.25, **changes)
    return located_row(found, WINDOW, lps, ABOUT)


def test_the_columns_are_those_that_were_agreed_and_then_more():
    assert ",".join(COLUMNS).startswith(FIRST_COLUMNS + ",")
    assert csv_text([]).splitlines()[0].startswith(FIRST_COLUMNS + ",")


def test_a_row_says_where_and_how():
    (said,) = csv.DictReader(io.StringIO(csv_text([row()])))
    assert [said[f"{a}_voxels"] for a in "zyx"] == ["10.0", "20.25", "30.123457"]
    assert [said[f"{a}_mm"] for a in "zyx"] == ["0.2", "0.4", "0.6"]
    assert [said[f"{a}_lps_mm"] for a in "zyx"] == ["5.0", "6.0", "7.0"]
    assert [said[f"crop_{a}"] for a in "zyx"] == ["0", "-4", "12"]
    assert (said["status"], said["crop_fit"], said["reason"]) == ("ok", "padded", "")
    assert (said["radius_voxels"], said["radius_mm"], said["confidence"]) == ("", "", "")


def test_what_is_known_of_the_uncertainty_is_said():
    (said,) = json.loads(json_text([row(radius_voxels=9.5, radius_mm=0.2, confidence=0.75)]))
    assert (said["radius_voxels"], said["radius_mm"], said["confidence"]) == (9.5, 0.2, 0.75)


def test_json_is_a_list_of_rows_with_null_for_unknown():
    (first, second) = json.loads(json_text([row(mm=None, lps=None), failed_row("b", "x", ABOUT)]))
    assert tuple(first) == tuple(second) == COLUMNS
    assert [first[f"{a}_mm"] for a in "zyx"] == [first[f"{a}_lps_mm"] for a in "zyx"] == [None] * 3
    assert first["z_voxels"] == 10.0
    assert second["object"] is None


def test_a_failure_is_a_row_with_its_reason_in_one_line():
    said = failed_row("b", "it broke\n  twice", {"seconds": 0.1, "path": "b", "key": "k"} | ABOUT)
    assert (said.status, said.reason, said.scan, said.z_voxels) == (
        "failed",
        "it broke twice",
        "b",
        None,
    )


def test_the_table_comes_back_as_it_was(tmp_path):
    rows = [row(), row(mm=None, lps=None, radius_voxels=2.0), failed_row("b", 'a "b", c', ABOUT)]
    (tmp_path / "t.csv").write_text(csv_text(rows))
    assert read_rows(tmp_path / "t.csv") == rows


def test_a_path_that_is_not_utf_8_and_has_a_newline_comes_back(tmp_path):
    path = '/data/fish \udcff,\n"12".tif'
    rows = [row(), failed_row("b", "x", ABOUT | {"path": path})]
    (tmp_path / "t.csv").write_text(csv_text(rows), "utf-8", "surrogateescape", "")
    assert read_rows(tmp_path / "t.csv") == rows


def test_cells_are_what_pythons_csv_writes():
    """Whole numbers stay whole beside an empty cell, and floats have all their digits."""
    rows = [
        {"a": 1, "b": None, "c": 0.1 + 0.2, "d": True, "e": 'x "y", z'},
        {"a": None, "b": 2, "c": 1e-7, "d": None, "e": "two\nlines", "f": 1e16},
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*"abcdef"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    assert table_text(rows) == text.getvalue()


def saved_by_a_spreadsheet(separator: str) -> str:
    """Return a table as a spreadsheet saves it where a comma is the sign of decimals."""
    cells = csv.reader(io.StringIO(csv_text([row()])))
    return "\n".join(separator.join(cell.replace(".", ",") for cell in line) for line in cells)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("scan,object\na,jaw\n", "it has no column z_voxels"),
        (csv_text([row()]).replace("status", "Status", 1), "it has no column status"),
        (saved_by_a_spreadsheet(";"), "its columns are separated by semicolons instead of commas"),
        (saved_by_a_spreadsheet("\t"), "its columns are separated by tabs instead of commas"),
        ("{}\n1\n", "it has no column scan"),
        ("", "EmptyDataError"),
    ],
)
def test_another_table_is_refused(tmp_path, content, said):
    """Regression: the reason was `KeyError: 'scan'`."""
    (tmp_path / "t.csv").write_text(content)
    rule = rf"t\.csv: --resume needs the table as jawloc wrote it; {said}"
    with pytest.raises(InputError, match=rule):
        read_rows(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("mm", "lps", "position"),
    [
        ((0.2, 0.4, 0.6), (5.0, 6.0, 7.0), [7.0, 6.0, 5.0]),
        ((0.2, 0.4, 0.6), None, [0.6, 0.4, 0.2]),
        (None, None, [30.123457, 20.25, 10.0]),
    ],
    ids=["patient space", "spacing only", "neither"],
)
def test_slicer_gets_the_best_coordinates_there_are_in_its_own_order(mm, lps, position):
    (markups,) = json.loads(slicer_text([row(mm=mm, lps=lps)]))["markups"]
    assert markups["type"] == "Fiducial"
    assert markups["coordinateSystem"] == "LPS"
    (point,) = markups["controlPoints"]
    assert (point["label"], point["position"]) == ("jaw", position)
    assert point["positionStatus"] == "defined"


def test_napari_gets_points_in_voxels_in_the_arrays_order():
    table = list(csv.reader(io.StringIO(napari_text([row(), failed_row("b", "x", ABOUT), row()]))))
    assert table[0][:4] == ["index", "axis-0", "axis-1", "axis-2"]
    assert [line[:4] for line in table[1:]] == [
        ["0", "10.0", "20.25", "30.123457"],
        ["1", "10.0", "20.25", "30.123457"],
    ]


FORMULAS = ["=HYPERLINK(1)", "+1", "-a", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-1", "'@"]
HARMLESS = ["a=1", "'a", "a-1", "1", "é", ""]


@pytest.mark.parametrize("name", FORMULAS + HARMLESS)
def test_no_name_becomes_a_formula_and_each_comes_back(tmp_path, name):
    """Regression: a file called =HYPERLINK(...).tif was a link in a table program."""
    _, (number, cell) = csv.reader(io.StringIO(table_text([{"a": -1.5, "scan": name}])))
    assert number == "-1.5"
    assert (cell == name) == (name in HARMLESS)
    assert not cell.startswith(("=", "+", "-", "@", "\t"))
    located = replace(row(), scan=name, reason=name or None, z_mm=-0.5)
    write_text(tmp_path / "locations.csv", csv_text([located]))
    assert read_rows(tmp_path / "locations.csv") == [located]
    assert f",{cell}," in napari_text([located]).replace('"', "")


@pytest.mark.parametrize("name", FORMULAS)
def test_points_are_of_the_scan_that_a_table_names(tmp_path, name):
    write_text(tmp_path / "locations.csv", csv_text([replace(row(), scan=name, object="=jaw")]))
    (point,) = read_table(tmp_path / "locations.csv", "").points
    assert (point.scan, point.object) == (name.strip(), "=jaw")
