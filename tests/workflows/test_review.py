"""`jawloc review`: results of `jawloc locate` in, a page to decide on out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jawloc.inference.exports import csv_text
from jawloc.scans.manifest import start_manifest, written_files
from jawloc.scans.points.review import Review, write_review
from tests.lab import files_below, only_sentence
from tests.reporting.test_location_text import row

REVIEWED = Review("a", "jaw", "absent", None, "Ana", "2026-01-02T03:04:05Z", "m", "p")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path("out/locations.csv").write_text(csv_text([row("a"), row("b")]), encoding="utf-8")
    return Path("out")


@pytest.mark.parametrize("place", ["out", "out/locations.csv"])
def test_a_page_is_made_beside_the_table(jawloc, results, place):
    start_manifest(results)
    write_review(results / "review.csv", [REVIEWED])
    result = jawloc("review", place, "--sheet", "--reviewer", "Ben")
    assert result.exit_code == 0, result.output
    said = "1 of 2 positions to decide about (1 is in review.csv): out/review.html"
    assert result.stdout.splitlines()[0] == said
    page = (results / "review.html").read_text(encoding="utf-8")
    assert 'id="reviewer" value="Ben"' in page
    # not review.csv, so that no command ever removes it
    assert written_files(results) == {"review.html"}


@pytest.mark.parametrize(
    ("names", "decided", "said"),
    [
        ("a", 0, "1 of 1 position to decide about: "),
        ("abc", 1, "2 of 3 positions to decide about (1 is in review.csv): "),
        ("abc", 2, "1 of 3 positions to decide about (2 are in review.csv): "),
    ],
)
def test_one_and_several_are_told_apart(jawloc, results, names, decided, said):
    (results / "locations.csv").write_text(csv_text(map(row, names)), encoding="utf-8")
    if decided:
        reviews = [replace(REVIEWED, scan=name) for name in names[:decided]]
        write_review(results / "review.csv", reviews)
    assert jawloc("review", "out", "--sheet").stdout.startswith(said)


def test_two_rows_of_one_object_are_refused(jawloc, results):
    """Regression: a decision about each made a review.csv that no command could read."""
    (results / "locations.csv").write_text(csv_text(map(row, "aba")), encoding="utf-8")
    assert only_sentence(jawloc("review", "out", "--sheet")) == (
        "out/locations.csv: a review needs one row for an object of a scan; 'jaw' of 'a' has 2"
    )


def test_decisions_about_files_that_the_table_does_not_have_are_named(jawloc, results):
    """Regression: not a word of them was said."""
    absent = replace(REVIEWED, scan="gone")
    write_review(results / "review.csv", [REVIEWED, absent])
    assert jawloc("review", "out", "--sheet").stderr.splitlines() == [
        "note: 1 decision in review.csv is about no file of locations.csv (scan gone): it is kept, "
        "and not shown"
    ]


def test_the_reviewer_is_who_is_logged_in_and_the_page_where_it_is_wanted(
    jawloc, results, monkeypatch
):
    before = files_below(results)
    monkeypatch.setattr("getpass.getuser", lambda: "login")
    assert jawloc("review", "out", "--sheet", "--output", "new/p.html").exit_code == 0
    assert 'value="login"' in Path("new/p.html").read_text(encoding="utf-8")

    def nobody():
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert jawloc("review", "out", "--sheet", "--output", "new/p.html").exit_code == 0
    assert 'id="reviewer" value=""' in Path("new/p.html").read_text(encoding="utf-8")
    assert files_below(results) == before


def test_what_is_no_result_is_refused_in_a_sentence(jawloc, results):
    def said(*arguments):
        return only_sentence(jawloc("review", *arguments, "--sheet"))

    assert said("none") == (
        "none: it must be a folder of results of `jawloc locate`, or their locations.csv; there is "
        "no none"
    )
    assert said(".").endswith("there is no locations.csv")
    (results / "review.csv").write_text("scan\na\n", encoding="utf-8")
    assert said("out").startswith("review.csv: a review needs the columns scan, object, verdict")
    (results / "locations.csv").write_text("scan\na\n", encoding="utf-8")
    assert said("out").startswith("out/locations.csv: a review needs the table as jawloc wrote it")
    stray = csv_text([row("a", picture_file="../../secret.png")])
    (results / "locations.csv").write_text(stray, encoding="utf-8")
    assert said("out").endswith("has files in pictures/; one is '../../secret.png'")
    (results / "locations.csv").write_text(csv_text([]), encoding="utf-8")
    assert said("out").endswith("a review needs at least one located scan; there is none")
    (results / "locations.csv").write_text(csv_text([row("a")]), encoding="utf-8")
    (results / "review.csv").unlink()
    (results / "review.html").write_text("mine", encoding="utf-8")
    assert said("out").startswith("out/review.html: jawloc didn't write this, and would overwrite")
    Path("file").touch()
    folder = said("out", "--output", "file/p.html")
    assert folder.startswith("--output: file must be a folder that can be written to; ")
