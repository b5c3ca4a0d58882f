"""Which rows of review.csv are labels to train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jawloc.errors import InputError
from jawloc.scans.points.corrections import Corrections, read_corrections
from jawloc.scans.points.review import Review, write_review


@pytest.fixture
def review(tmp_path):
    """Return a function that writes reviews beside the scans a and b, which exist."""
    for name in "ab":
        (tmp_path / f"{name}.tif").touch()

    def write(*reviews: Review, name: str = "review.csv") -> Path:
        write_review(tmp_path / name, reviews)
        return tmp_path / name

    return write


def decided(scan: str = "a", verdict="moved", **others) -> Review:
    at = (1.0, 2.0, 3.0) if verdict in ("moved", "accepted") else None
    time = "2026-01-02T03:04:05Z"
    one = Review(scan, "jaw", verdict, at, "Ana", time, "old", f"{scan}.tif")
    return replace(one, **others)


def test_corrected_positions_train_and_accepted_ones_only_if_asked(review):
    path = review(decided("b"), decided("a", "accepted"))
    only = read_corrections([path], ["jaw"], 0.0)
    assert [scan.scan_id for scan in only.scans] == ["b"]
    assert only.unused == {"accepted": 1}
    both = read_corrections([path], ["jaw"], 0.5)
    assert [(s.scan_id, s.is_corrected) for s in both.scans] == [("a", False), ("b", True)]
    assert [p.weight for scan in both.scans for p in scan.positions] == [0.5, 1.0]
    assert both.scans[0].path == path.parent / "a.tif"
    assert both.model == "old"


def test_what_is_absent_skipped_or_another_object_is_counted(review):
    """Regression: a mistyped object was only "1 of other objects"."""
    path = review(
        decided("a"),
        decided("b", "absent"),
        decided("b", "skipped", object="otolith"),
        decided("a", object="eye"),
        decided("a", object="jaw "),
    )
    found = read_corrections([path], ["jaw"], 0.0)
    assert found.unused == {
        "absent": 1,
        "skipped": 1,
        "of the object 'eye', which is not trained on": 1,
        "of the object 'jaw ', which is not trained on": 1,
    }


def test_the_last_decision_counts_whichever_file_it_is_in(review):
    late = decided("a", position_voxels_zyx=(7.0, 8.0, 9.0), time="2026-02-01T00:00:00Z")
    files = [review(late), review(decided("a", model="other"), name="b.csv")]
    for order in (files, files[::-1]):
        (scan,) = read_corrections(order, ["jaw"], 0.0).scans
        assert [p.voxels_zyx for p in scan.positions] == [(7.0, 8.0, 9.0)]
    withdrawn = replace(late, verdict="absent", position_voxels_zyx=None)
    with pytest.raises(InputError, match="it has 1 absent"):
        read_corrections([review(withdrawn), files[1]], ["jaw"], 0.0)


def test_a_scan_that_reviews_name_by_two_paths_is_one(review, tmp_path):
    """Regression: by way of a link it was another scan of the same name, and refused."""
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    other = decided("a", object="eye", path="link/a.tif")
    (scan,) = read_corrections([review(decided("a"), other)], ["jaw", "eye"], 0.0).scans
    assert {p.object for p in scan.positions} == {"jaw", "eye"}


def test_no_file_is_no_correction():
    assert read_corrections([], ["jaw"], 0.5) == Corrections()
    assert Corrections().model is None


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (decided("c"), "line 2: path must be the file of scan c .a relative.*; there is none at"),
        (decided("a", path=""), "path must be the file of scan a"),
        (decided("a", "accepted"), "must have a corrected position of jaw, .* it has 1 accepted"),
        (decided("../a", path="a.tif"), "scan must be the name of a scan; it is '../a'"),
        (decided("a", reviewer="J\udce4"), "line 2: reviewer must be text in UTF-8; it is "),
    ],
)
def test_a_review_that_cannot_be_trained_on_is_refused(review, row, sentence):
    with pytest.raises(InputError, match=sentence):
        read_corrections([review(row)], ["jaw"], 0.0)


def test_each_missing_scan_has_a_line(review):
    with pytest.raises(InputError) as refused:
        read_corrections([review(decided("c"), decided("d"))], ["jaw"], 0.0)
    assert [line[:18] for line in str(refused.value).splitlines()] == [
        "review.csv, line 2",
        "review.csv, line 3",
    ]


def test_two_scans_of_one_name_are_refused(review):
    files = [review(decided("a")), review(decided("a", path="b.tif"), name="b.csv")]
    with pytest.raises(InputError, match="two scans must not share a name; a is"):
        read_corrections(files, ["jaw"], 0.0)


def test_two_scans_of_one_file_are_refused(review, tmp_path):
    """Regression: they were one scan, and the earlier decision was lost in silence."""
    (tmp_path / "link.tif").symlink_to(tmp_path / "a.tif")
    for path in ("a.tif", "link.tif"):
        file = review(decided("a"), decided("b", "absent", path=path))
        with pytest.raises(InputError, match=r"line 3: two scans must not share a file; a and b"):
            read_corrections([file], ["jaw"], 0.0)


def test_a_decision_without_a_path_is_refused_also_where_it_would_not_train(review):
    """Regression: all of them were of one scan, so that the last one took the others' place."""
    file = review(decided("a", path=""), decided("b", "absent", path=""))
    with pytest.raises(InputError) as refused:
        read_corrections([file], ["jaw"], 0.0)
    assert str(refused.value).splitlines() == [
        "review.csv, line 2: path must be the file of scan a; it is empty",
        "review.csv, line 3: path must be the file of scan b; it is empty",
    ]


@pytest.mark.parametrize("content", ["scan,z\na,1\n", ""])
def test_a_table_that_is_no_review_is_refused(tmp_path, content):
    path = tmp_path / "other.csv"
    path.write_text(content)
    with pytest.raises(InputError, match="a review needs the columns"):
        read_corrections([path], ["jaw"], 0.0)
    with pytest.raises(InputError, match=r"no\.csv must be a review\.csv that can be read"):
        read_corrections([tmp_path / "no.csv"], ["jaw"], 0.0)
