"""Positions in the terminal: all of few scans, the most doubtful of many."""

from __future__ import annotations

from jawloc.inference.exports import COLUMNS, FAILED, Row
from jawloc.reporting.location_text import MOST_DOUBTFUL, by_doubt, describe_rows, padding_note


def row(scan, status="ok", spread=1.0, **more) -> Row:
    known = {"scan": scan, "object": "jaw", "status": status, "spread_voxels": spread}
    known |= {f"{axis}_voxels": 10.0 for axis in "zyx"}
    known |= {"path": "p", "model": "m", "key": "k"}
    return Row(**(dict.fromkeys(COLUMNS) | known | more))


def failed(scan) -> Row:
    nothing = dict.fromkeys(f"{axis}_voxels" for axis in "zyx")
    return row(scan, FAILED, None, object=None, reason="a.tif: not a\nTIFF", **nothing)


def test_the_most_doubtful_come_first_by_status_and_then_by_spread():
    rows = [
        row("a"),
        row("b", "uncertain", 2.0),
        row("c", spread=5.0),
        row("d", "not found"),
        failed("e"),
        row("f", "uncertain", 3.0),
    ]
    assert [one.scan for one in by_doubt(rows)] == ["e", "d", "f", "b", "c", "a"]


def test_of_few_scans_every_position_is_listed_with_its_reason():
    said = describe_rows([row("a", radius_voxels=4.0), failed("e")])
    assert said == [
        "  scan     z     y     x  spread  radius (voxels)  status",
        "  a     10.0  10.0  10.0     1.0              4.0  ok",
        "  e                                                failed: a.tif: not a TIFF",
    ]


def test_of_many_scans_the_statuses_are_counted_and_only_the_doubtful_listed():
    doubtful = [row(f"bad_{n:02d}", "uncertain", n / 10) for n in range(15)]
    said = describe_rows([*(row(f"good_{n}") for n in range(10)), *doubtful])
    assert [line.split() for line in said[1:3]] == [["ok", "10"], ["uncertain", "15"]]
    assert said[3] == "The most doubtful:"
    listed = [line.split()[0] for line in said[5:]]
    assert listed == [f"bad_{n:02d}" for n in range(14, 14 - MOST_DOUBTFUL, -1)]
    assert not describe_rows([])


def test_the_note_on_padding_names_size_scan_and_option():
    note = padding_note((20, 40, 12), "fish")
    assert "20×40×12 voxels is larger than fish" in note
    assert "--crop-size" in note
