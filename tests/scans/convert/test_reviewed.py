"""A review.csv in dicom_dirs: labelled DICOMs are made of it, and made anew where it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from jawloc.errors import InputError
from jawloc.scans.convert.reviewed import REVIEWED, reviewed_scans
from jawloc.scans.dicom import open_labelled_dicom
from jawloc.scans.labelled import find_labelled_dicoms
from jawloc.scans.points.review import Review, write_review
from jawloc.scans.scan import ScanPoint
from tests.lab import only_sentence

TIME = "2026-11-27T15:01:18Z"
ABOUT = ("Ana", TIME, "m.pth")


@pytest.fixture
def review(tmp_path):
    """A review of a NIfTI with two objects, a TIFF, and a scan without the object."""
    images = np.arange(4 * 6 * 8, dtype=np.int16).reshape(4, 6, 8)
    for name in ("a.nii.gz", "b.tif", "c.nrrd"):
        image = sitk.GetImageFromArray(images)
        image.SetSpacing((0.5, 0.25, 2.0))
        sitk.WriteImage(image, str(tmp_path / name))
    path = tmp_path / "review.csv"
    a, b, c = (str(tmp_path / name) for name in ("a.nii.gz", "b.tif", "c.nrrd"))
    rows = [
        Review("a", "jaw", "accepted", (1.25, 2.0, 3.5), *ABOUT, a),
        Review("a", "eye", "moved", (0.0, 5.0, 7.0), *ABOUT, a),
        Review("b", "jaw", "moved", (3.0, 0.0, 0.5), *ABOUT, b),
        Review("c", "jaw", "absent", None, *ABOUT, c),
    ]
    write_review(path, rows)
    return path, rows


def states(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*.dcm")}


def test_what_was_accepted_or_moved_is_a_labelled_dicom_with_points(review):
    path, _ = review
    found = find_labelled_dicoms([path])
    assert found == [path.parent / REVIEWED / name for name in ("a.dcm", "b.dcm")]
    a, b = map(open_labelled_dicom, found)
    assert a.points == (ScanPoint("jaw", (1.25, 2.0, 3.5)), ScanPoint("eye", (0.0, 5.0, 7.0)))
    assert b.points == (ScanPoint("jaw", (3.0, 0.0, 0.5)),)
    assert a.grid.spacing_mm_zyx == (2.0, 0.25, 0.5)
    assert np.array_equal(a.read_grey_values(0, 4), np.arange(192).reshape(4, 6, 8))


def test_only_what_has_changed_is_made_anew(review):
    path, rows = review
    folder = reviewed_scans(path)
    before = states(folder)
    assert states(reviewed_scans(path)) == before
    write_review(path, [replace(row, time=TIME, reviewer="Ben") for row in rows])
    assert states(reviewed_scans(path)) == before  # who decided is no label
    write_review(path, [*rows[:2], replace(rows[2], position_voxels_zyx=(2.0, 0.0, 0.5))])
    after = states(reviewed_scans(path))
    assert after["a.dcm"] == before["a.dcm"]
    assert after["b.dcm"] != before["b.dcm"]
    assert open_labelled_dicom(folder / "b.dcm").points == (ScanPoint("jaw", (2.0, 0.0, 0.5)),)
    image = sitk.ReadImage(str(path.parent / "a.nii.gz")) + 1
    sitk.WriteImage(image, str(path.parent / "a.nii.gz"))
    reviewed_scans(path)
    assert open_labelled_dicom(folder / "a.dcm").read_grey_values(0, 1)[0, 0, 0] == 1


def test_a_scan_without_a_position_any_more_is_removed_and_nothing_else(review):
    path, rows = review
    folder = reviewed_scans(path)
    (folder / "mine.txt").write_text("a note")
    write_review(path, [rows[2], *(replace(row, scan="c", object=row.object) for row in rows[:1])])
    reviewed_scans(path)
    assert {p.name for p in folder.iterdir() if p.name[0] != "."} == {"b.dcm", "c.dcm", "mine.txt"}


def test_a_damaged_file_of_an_earlier_time_is_made_anew(review):
    path, _ = review
    folder = reviewed_scans(path)
    (folder / "b.dcm").write_bytes(b"")
    reviewed_scans(path)
    assert open_labelled_dicom(folder / "b.dcm").points


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"position_voxels_zyx": (9.0, 0.0, 0.0)},
            r"'b' needs .*must lie in its scan.*\(9, 0, 0\)",
        ),
        ({"path": "/nowhere/b.tif"}, r"'b' needs its scan to be read; b.tif: .* there is none at"),
        ({"path": ""}, "path must name the file of b, in all its rows alike; it is ''"),
        ({"scan": "../b"}, "scan must be a name without folders; it is '../b'"),
        ({"verdict": "skipped", "position_voxels_zyx": None}, "must have a position that was acc"),
    ],
)
def test_what_cannot_be_a_label_is_refused_with_file_rule_and_value(review, change, said):
    path, rows = review
    write_review(path, [replace(rows[2], **change)])
    with pytest.raises(InputError, match=said) as caught:
        find_labelled_dicoms([path])
    assert str(caught.value).startswith(str(path))
    assert not [*path.parent.rglob("*.dcm")]


def test_two_scans_of_one_file_are_refused(review):
    """Regression: one image became two labelled DICOMs with two positions."""
    path, rows = review
    write_review(path, [rows[2], replace(rows[2], scan="d")])
    with pytest.raises(InputError, match=r"review\.csv: two scans must not share a file; b and d"):
        reviewed_scans(path)


def test_a_scan_may_be_named_by_two_paths(review):
    """Regression: two ways to write one path were refused as two files."""
    path, rows = review
    write_review(path, [rows[0], replace(rows[1], path="a.nii.gz")])
    (found,) = find_labelled_dicoms([path])
    assert len(open_labelled_dicom(found).points) == 2


def test_the_file_of_another_program_stays(review):
    path, _ = review
    (path.parent / REVIEWED).mkdir()
    (path.parent / REVIEWED / "b.dcm").write_text("mine")
    with pytest.raises(InputError, match=r"jawloc didn't write .*b\.dcm, and would overwrite it"):
        reviewed_scans(path)
    assert (path.parent / REVIEWED / "b.dcm").read_text() == "mine"


def test_reviews_in_one_folder_have_files_of_their_own(review):
    """A browser saves a second one beside the first as `review (1).csv`."""
    path, rows = review
    other = path.with_name("review (1).csv")
    write_review(other, [replace(rows[2], position_voxels_zyx=(2.0, 0.0, 0.5))])
    first, second = reviewed_scans(path), reviewed_scans(other)
    assert open_labelled_dicom(second / "b.dcm").points == (ScanPoint("jaw", (2.0, 0.0, 0.5)),)
    assert open_labelled_dicom(first / "b.dcm").points == (ScanPoint("jaw", (3.0, 0.0, 0.5)),)
    with pytest.raises(InputError, match="two scans must not share an id"):
        find_labelled_dicoms([path, other])


def test_that_accepted_positions_are_labels_is_told(review):
    path, _ = review
    with pytest.warns(UserWarning, match=r"1 of its positions is as a model found it"):
        reviewed_scans(path)


def test_the_cache_is_built_of_a_review(lab, jawloc):
    """As training builds it: a review beside a folder of labelled DICOMs."""
    scans = sorted((lab / "dicoms" / "labelled").glob("*.dcm"))
    moved = scans[0].rename(lab / "elsewhere.dcm")
    row = Review("corrected", "jaw", "moved", (20.0, 10.0, 11.0), *ABOUT, str(moved))
    write_review(lab / "review.csv", [row])
    named = 'dicom_dirs=["dicoms/labelled", "review.csv"]'
    result = jawloc("cache", "build", "--set", named)
    assert result.exit_code == 0, result.output
    cached = sorted(path.name for path in (lab / "dicoms" / "downsampled_dicoms").rglob("*.dcm"))
    assert cached == ["corrected.dcm", *(path.name for path in scans[1:])]
    write_review(lab / "review.csv", [replace(row, scan=scans[1].stem)])
    said = only_sentence(jawloc("cache", "build", "--set", named))
    assert "two scans must not share an id" in said
