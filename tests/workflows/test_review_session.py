"""Deciding about positions: the order, what is on disk after each decision, undo, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jawloc.errors import InputError
from jawloc.inference.exports import csv_text
from jawloc.scans.points.review import Review, read_review, write_review
from jawloc.workflows.review_session import ReviewSession
from tests.lab import files_below
from tests.reporting.test_location_text import failed, row

TIME = "2026-11-27T15:01:18Z"


@pytest.fixture
def folder(tmp_path):
    rows = [row("good"), row("unsure", "uncertain", 4.0), row("best", spread=0.1), failed("bad")]
    (tmp_path / "locations.csv").write_text(csv_text(rows), encoding="utf-8")
    return tmp_path


def on_disk(folder: Path) -> list[tuple]:
    path = folder / "review.csv"
    found = read_review(path) if path.exists() else ()
    return [(r.scan, r.verdict, r.position_voxels_zyx) for r in found]


def test_the_most_doubtful_comes_first_and_each_decision_is_on_disk_at_once(folder):
    session = ReviewSession(folder, "Ana")
    assert (session.row.scan, session.left) == ("bad", 4)
    session.absent()
    assert on_disk(folder) == [("bad", "absent", None)]
    assert (session.row.scan, session.left) == ("unsure", 3)
    session.move((1.5, 2.0, 3.25))
    assert session.row.scan == "unsure"  # it may be moved once more
    assert session.position_voxels_zyx == (1.5, 2.0, 3.25)
    session.accept()  # of what was moved
    assert session.row.scan == "good"
    session.accept()
    session.skip()
    assert session.left == 0
    # in the table's order
    assert on_disk(folder) == [
        ("good", "accepted", (10.0, 10.0, 10.0)),
        ("unsure", "moved", (1.5, 2.0, 3.25)),
        ("best", "skipped", None),
        ("bad", "absent", None),
    ]
    (first, *_) = read_review(folder / "review.csv")
    assert (first.reviewer, first.model, first.path, first.object) == ("Ana", "m", "p", "jaw")


def test_undo_takes_decisions_back_one_by_one_and_goes_to_their_rows(folder):
    session = ReviewSession(folder)
    session.skip()
    session.move((1.0, 2.0, 3.0))
    session.move((4.0, 5.0, 6.0))
    session.next()
    assert session.undo()
    assert (session.row.scan, session.position_voxels_zyx) == ("unsure", (1.0, 2.0, 3.0))
    assert ("unsure", "moved", (1.0, 2.0, 3.0)) in on_disk(folder)
    assert session.undo()
    assert session.decision is None
    assert session.undo()
    assert (session.row.scan, on_disk(folder), session.left) == ("bad", [], 4)
    assert not session.undo()


def test_a_decision_about_the_scan_where_it_lay_before_gives_way(folder):
    """A review decides once about an object of a scan: another file of it takes the place."""
    earlier = Review("unsure", "jaw", "moved", (1.0, 1.0, 1.0), "Ben", TIME, "m", "/a/unsure.tif")
    write_review(folder / "review.csv", [earlier])
    session = ReviewSession(folder)
    session.absent()
    assert ("unsure", "moved", (1.0, 1.0, 1.0)) in on_disk(folder)
    session.accept()
    assert on_disk(folder) == [("unsure", "accepted", (10.0, 10.0, 10.0)), ("bad", "absent", None)]


def test_decisions_of_a_session_that_closed_meanwhile_stay(folder):
    waiting = ReviewSession(folder)  # loads a model, opens napari
    with ReviewSession(folder).alone():
        other = ReviewSession(folder)
        other.absent()
    with waiting.alone():
        assert (waiting.row.scan, waiting.left) == ("unsure", 3)
        waiting.accept()
    assert [scan for scan, *_ in on_disk(folder)] == ["unsure", "bad"]


def test_what_is_on_disk_is_gone_on_with(folder):
    """After a crash, or with the file that the page of --sheet saved."""
    session = ReviewSession(folder)
    session.absent()
    session.accept()
    again = ReviewSession(folder)
    assert (again.row.scan, again.left) == ("good", 2)
    again.back()
    assert again.decision is not None
    assert again.decision.verdict == "accepted"
    other = Review("elsewhere", "jaw", "moved", (1.0, 2.0, 3.0), "", "2026-01-02T03:04:05Z", "", "")
    write_review(folder / "review.csv", [*read_review(folder / "review.csv"), other])
    last = ReviewSession(folder)
    last.skip()
    assert len(on_disk(folder)) == 4
    assert on_disk(folder)[-1] == ("elsewhere", "moved", (1.0, 2.0, 3.0))  # of another table


def test_what_another_person_saves_meanwhile_stays(folder):
    """Regression: the next decision wrote over a review.csv that a page of --sheet had saved."""
    session = ReviewSession(folder, "Ana")
    with session.alone():
        session.absent()
        session.move((1.0 / 3, 1.0, 1.0))
        (bad,) = [one for one in read_review(folder / "review.csv") if one.scan == "bad"]
        best = Review("best", "jaw", "moved", (1.0, 2.0, 3.0), "Ben", TIME, "m", "p")
        mine = [one for one in read_review(folder / "review.csv") if one.scan == "unsure"]
        write_review(folder / "review.csv", [*mine, best, replace(bad, verdict="skipped")])
        session.accept()  # of what was moved: nothing to be written
        session.accept()
        assert session.row.scan == "best"  # the last
        assert session.position_voxels_zyx == (1.0, 2.0, 3.0)
        kept = [("best", "moved", (1.0, 2.0, 3.0)), ("bad", "skipped", None)]
        moved = ("unsure", "moved", (0.333333, 1.0, 1.0))
        assert on_disk(folder) == [("good", "accepted", (10.0, 10.0, 10.0)), moved, *kept]
        assert session.undo()
        assert session.undo()
        assert not session.undo()  # of what the other person has decided since
        assert on_disk(folder) == kept
        (folder / "review.csv").unlink()
        session.skip()
        assert len(on_disk(folder)) == 3


def test_what_is_saved_right_after_a_decision_stays(folder, monkeypatch):
    """Regression: a file that came before the session had read its own again was written over."""
    best = Review("best", "jaw", "moved", (1.0, 2.0, 3.0), "Ben", TIME, "m", "p")

    def then_another(path, reviews):
        write_review(path, reviews)
        write_review(path, [*reviews, best])

    session = ReviewSession(folder)
    with monkeypatch.context() as patch:
        patch.setattr("jawloc.workflows.review_session.write_review", then_another)
        session.absent()
    session.skip()
    kept = [("best", "moved", (1.0, 2.0, 3.0)), ("bad", "absent", None)]
    assert on_disk(folder) == [("unsure", "skipped", None), *kept]


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def made_a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (emptied, "review.csv: a review needs the columns scan, .*; it has no scan"),
        (made_a_folder, "review.csv: a review must be readable; Is a directory"),
        (lambda path: path.write_bytes(b"\0\xff"), "review.csv: a review needs the columns"),
    ],
)
def test_a_review_that_cannot_be_read_is_refused_before_and_meanwhile(folder, damage, said):
    """Regression: a folder of that name was a traceback, and an empty file was written over."""
    path = folder / "review.csv"
    session = ReviewSession(folder)
    session.absent()
    damage(path)
    before = files_below(folder)
    for attempt in (session.absent, session.undo, lambda: ReviewSession(folder)):
        with pytest.raises(InputError, match=said):
            attempt()
    assert (session.row.scan, session.left, files_below(folder)) == ("unsure", 3, before)


def test_going_to_and_fro_ends_at_the_ends(folder):
    session = ReviewSession(folder)
    session.back()
    assert session.place == 0
    assert session.upcoming is not None
    assert session.upcoming.scan == "unsure"
    for _ in range(9):
        session.next()
    assert (session.place, session.row.scan) == (3, "best")
    session.accept()  # the last: the first one that is left comes next
    assert session.row.scan == "bad"
    for _ in range(3):
        session.skip()
    assert session.upcoming is None


def test_what_was_not_found_is_neither_accepted_nor_moved(folder):
    session = ReviewSession(folder)
    with pytest.raises(InputError, match="bad: a position must be found to be accepted"):
        session.accept()
    with pytest.raises(InputError, match="bad: a scan that failed has no object to be moved"):
        session.move((1.0, 2.0, 3.0))
    assert on_disk(folder) == []


def test_a_decision_that_cannot_be_written_does_not_count(folder, monkeypatch):
    session = ReviewSession(folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jawloc.workflows.review_session.write_review", full)
    with pytest.raises(OSError, match="No space"):
        session.absent()
    assert (session.decision, session.row.scan, session.undo()) == (None, "bad", False)


def test_two_at_once_would_lose_decisions(folder):
    with (
        ReviewSession(folder).alone(),
        pytest.raises(InputError, match="one `jawloc review` at a time"),
        ReviewSession(folder).alone(),
    ):
        pass
    with ReviewSession(folder).alone():
        pass


def test_a_position_that_another_model_found_since_is_decided_about_anew(folder):
    ReviewSession(folder).skip()
    session = ReviewSession(folder)
    session.accept()
    rows = [replace(row("unsure", "uncertain", 4.0), z_voxels=2.0), failed("bad")]
    (folder / "locations.csv").write_text(csv_text(rows), encoding="utf-8")
    again = ReviewSession(folder)
    again.next()
    assert again.decision is not None
    assert (again.decision.verdict, again.position_voxels_zyx) == ("moved", (10.0, 10.0, 10.0))
