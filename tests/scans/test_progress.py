"""Progress where the output is a file, with a clock that the tests move."""

from __future__ import annotations

import io

import pytest

from jawloc.scans import progress
from jawloc.scans.progress import Progress, named_steps


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(progress.time, "monotonic", made)
    monkeypatch.setattr("tqdm.std.time", made)  # tqdm's own, for what has passed and is left
    return made


@pytest.fixture
def file(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    return io.StringIO()


def test_a_file_gets_a_line_a_minute_and_a_last_one(clock, file):
    with Progress(total=10, desc="locate", unit="scan", file=file) as bar:
        for _ in range(10):
            clock.now += 20
            bar.update()
    assert file.getvalue().splitlines() == [
        "locate: 1 of 10 scans, 00:20, about 03:00 left",
        "locate: 4 of 10 scans, 01:20, about 02:00 left",
        "locate: 7 of 10 scans, 02:20, about 01:00 left",
        "locate: 10 of 10 scans, 03:20",
    ]


def test_what_is_over_at_once_leaves_no_line(clock, file):
    for _ in Progress(range(5), desc="loading", unit="scan", file=file):
        clock.now += 0.3
    assert file.getvalue() == ""


@pytest.mark.parametrize("hidden", ["shown", "rank"])
def test_only_the_first_process_shows_any_and_nothing_where_it_is_not_wanted(
    clock, file, monkeypatch, hidden
):
    if hidden == "rank":
        monkeypatch.setenv("RANK", "1")
    shown = hidden == "rank"
    with Progress(total=2, desc="train", unit="epoch", shown=shown, file=file) as bar:
        clock.now += 500
        bar.update()
    assert file.getvalue() == ""


def test_bytes_are_counted_in_large_units_and_messages_stay_whole_lines(clock, file):
    how = {"unit": "B", "unit_scale": True, "file": file}
    with Progress(total=int(5e9), desc="downsampling", **how) as bar:
        clock.now += 3
        bar.update(2.5e9)
        bar.write("failed: a.tif", file=file)
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("downsampling: 2.50G of 5.00G B, 00:03, about 00:03 left")
    assert lines[1] == "failed: a.tif"


def test_steps_are_named_as_they_begin(clock, capsys):
    with named_steps("finish", 2) as begin:
        begin("testing")
        clock.now += 70
        begin("drawing")
        clock.now += 70
    assert capsys.readouterr().err.splitlines() == [
        "finish: 1 of 2 steps, 01:10, drawing",
        "finish: 2 of 2 steps, 02:20",
    ]
