"""review.csv: what people decided about located positions, written, read, and made labels of."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from jawloc.errors import InputError
from jawloc.scans.convert.points import read_points
from jawloc.scans.dicom import open_labelled_dicom
from jawloc.scans.points.review import (
    REVIEW_COLUMNS,
    Review,
    read_review,
    review_text,
    time_of_review,
    write_review,
)
from jawloc.scans.scan import ScanPoint
from tests.lab import files_below, write_lab_dicom

HEADER = "scan,object,verdict,z,y,x,reviewer,time,model,path"
TIME = "2026-11-27T15:01:18Z"
ACCEPTED = Review("a", "jaw", "accepted", (1.25, 20.0, 3.000001), "Ana", TIME, "m.pth", "/d/a.dcm")
MOVED = replace(ACCEPTED, scan="b", verdict="moved", position_voxels_zyx=(0.0, -0.5, 1500.125))
ABSENT = replace(ACCEPTED, scan="c", verdict="absent", position_voxels_zyx=None)
SKIPPED = replace(ABSENT, scan="d", object=None, verdict="skipped", reviewer="")


def test_a_review_is_a_table_with_a_row_an_object():
    assert review_text([ACCEPTED, MOVED, ABSENT, SKIPPED]) == (
        f"{HEADER}\n"
        f"a,jaw,accepted,1.25,20,3.000001,Ana,{TIME},m.pth,/d/a.dcm\n"
        f"b,jaw,moved,0,-0.5,1500.125,Ana,{TIME},m.pth,/d/a.dcm\n"
        f"c,jaw,absent,,,,Ana,{TIME},m.pth,/d/a.dcm\n"
        f"d,,skipped,,,,,{TIME},m.pth,/d/a.dcm\n"
    )


@pytest.mark.parametrize(
    "name", ["=1+1", "'+a", "a,b", 'a "b"', "é\u2028", "\udce9", " a ", "a\rb", "a\nb", "-", "\ta"]
)
def test_what_is_written_is_read_again(tmp_path, name):
    """Whatever a scan is called: a name that isn't UTF-8, a formula, a line break."""
    about = {"scan": name, "object": name, "reviewer": name, "model": name, "path": name}
    reviews = (replace(ACCEPTED, **about), replace(ABSENT, **{**about, "object": None}), MOVED)
    write_review(tmp_path / "review.csv", reviews)
    assert read_review(tmp_path / "review.csv") == reviews
    cells = (tmp_path / "review.csv").read_text("utf-8", "surrogateescape").split(",")
    assert not any(cell.strip('"').startswith(("=", "+", "-\n")) for cell in cells)
    assert list(files_below(tmp_path)) == ["review.csv"]


def test_a_review_of_nothing_is_read_again(tmp_path):
    write_review(tmp_path / "review.csv", ())
    assert read_review(tmp_path / "review.csv") == ()


def test_a_review_that_a_table_program_saved_is_read(tmp_path):
    """With semicolons, a byte order mark, other line ends, and its columns in another order."""
    path = tmp_path / "review.csv"
    columns = ";".join(reversed(REVIEW_COLUMNS))
    row = "/d/a.dcm;m.pth;2026-11-27T15:01:18+00:00;Ana;3.000001;20.0;1.25; accepted;jaw;a"
    path.write_bytes(f"\ufeff{columns}\r\n{row}\r\n;;;;;;;;;\r\n".encode())
    assert read_review(path) == (ACCEPTED,)


def test_times_are_in_utc():
    here = timezone(timedelta(hours=-5))
    assert time_of_review(datetime(2026, 11, 27, 10, 1, 18, 999, here)) == TIME
    assert datetime.fromisoformat(time_of_review()).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scan,object\na,jaw\n", "r.csv: a review needs the columns scan, .* path; it has no verd"),
        (f"{HEADER}\na,jaw,yes,1,2,3,,{TIME},m,p\n", "line 2: verdict must be acc.*'yes'$"),
        (f"{HEADER}\n,jaw,absent,,,,,{TIME},m,p\n", "line 2: scan must be the name of a scan"),
        (
            f"{HEADER}\na,jaw,moved,,,,,{TIME},m,p\n",
            "line 2: z, y and x must be given .*empt",
        ),
        (f"{HEADER}\na,jaw,absent,1,2,3,,{TIME},m,p\n", r"must be empty where .* \(1.0, 2.0, 3.0"),
        (f"{HEADER}\na,jaw,moved,1,,3,,{TIME},m,p\n", "line 2: a point needs all of z, y, x; y is"),
        (f"{HEADER}\na,jaw,moved,1,x,3,,{TIME},m,p\n", "line 2: y must be a number; it is 'x'"),
        (f"{HEADER}\na,,moved,1,2,3,,{TIME},m,p\n", "line 2: object must be named"),
        (f"{HEADER}\na,jaw,absent,,,,,now,m,p\n", "line 2: time must be ISO 8601 in UTC.*'now'"),
        (f"{HEADER}\na,jaw,absent,,,,,2026-11-27T15:01:18,m,p\n", "time must be ISO 8601 in UTC"),
        (f"{HEADER}\na,jaw,absent,,,,,2026-11-27T15:01:18+01:00,m,p\n", "time must be ISO 8601"),
        (f"{HEADER}\na,jaw,absent,,,,,{TIME},m\n", "line 2: a row must have a cell for each of"),
        (
            f"{HEADER}\na,jaw,absent,,,,,{TIME},m,p\na,jaw,skipped,,,,,{TIME},m,p\n",
            "line 3: an object of a scan has one row .*'jaw' of 'a' has another in line 2",
        ),
        (f"{HEADER}\na,jaw,absent,,,,,{TIME},m,p\0\n", "line 2: path must be the name of a file"),
    ],
)
def test_what_is_no_review_is_refused_with_file_line_rule_and_value(tmp_path, text, said):
    path = tmp_path / "r.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said) as caught:
        read_review(path)
    assert str(caught.value).startswith("r.csv")
    assert "\n" not in str(caught.value)


def test_what_excel_saves_as_unicode_text_is_named(tmp_path):
    """Regression: it was said to have rows of too few cells."""
    path = tmp_path / "r.csv"
    path.write_text(f"{HEADER}\na,jaw,absent,,,,,{TIME},m,p\n", encoding="utf-16")
    with pytest.raises(InputError, match=r"r.csv: a table must be text in UTF-8; it is in UTF-16"):
        read_review(path)


def test_a_review_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="a review must be readable; No such file"):
        read_review(tmp_path / "review.csv")


def test_accepted_and_moved_positions_are_points(tmp_path):
    path = tmp_path / "review.csv"
    write_review(path, [ACCEPTED, MOVED, ABSENT, SKIPPED])
    given = read_points(path)
    assert [(p.scan, p.object, p.position_zyx, p.space, p.source) for p in given.points] == [
        ("a", "jaw", (1.25, 20.0, 3.000001), "voxels", "review.csv, line 2"),
        ("b", "jaw", (0.0, -0.5, 1500.125), "voxels", "review.csv, line 3"),
    ]
    assert given.skipped == (
        ("c", "'jaw' is 'absent' in review.csv, line 4"),
        ("d", "the point is 'skipped' in review.csv, line 5"),
    )


def test_jawloc_dicoms_makes_labels_of_a_review(tmp_path, jawloc, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for scan in "abcd":
        write_lab_dicom(Path("images", f"{scan}.dcm"), np.ones((4, 5, 6), np.uint16), None)
    moved = replace(MOVED, position_voxels_zyx=(3.0, 0.5, 2.25))
    accepted = replace(ACCEPTED, position_voxels_zyx=(1.0, 2.0, 3.0))
    write_review(Path("review.csv"), [accepted, moved, ABSENT, SKIPPED])
    result = jawloc("dicoms", "images", "review.csv", "out")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-3:] == [
        "skipped c: no point for c: 'jaw' is 'absent' in review.csv, line 4",
        "skipped d: no point for d: the point is 'skipped' in review.csv, line 5",
        "2 labelled DICOMs written to out, 2 skipped",
    ]
    points = {path.stem: open_labelled_dicom(path).points for path in Path("out").iterdir()}
    assert points == {
        "a": (ScanPoint("jaw", (1.0, 2.0, 3.0)),),
        "b": (ScanPoint("jaw", (3.0, 0.5, 2.25)),),
    }
