"""Corrected positions become labelled DICOMs, once."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from jawloc.errors import InputError
from jawloc.phantom import write_phantoms
from jawloc.scans.convert.corrected import write_corrected
from jawloc.scans.dicom import open_labelled_dicom
from jawloc.scans.points.corrections import CorrectedScan, Correction
from tests.lab import SCAN_SHAPE
from tests.scans.points.test_corrections import decided


def corrected(path, at=(3.5, 4.0, 5.25)) -> CorrectedScan:
    position = Correction(decided(path.stem), "jaw", at, 1.0, "review.csv, line 2")
    return CorrectedScan(path.stem, path, (position,))


@pytest.fixture
def phantom(tmp_path):
    (path,) = write_phantoms(tmp_path / "scans", 1, SCAN_SHAPE, progress=False)
    return path


def test_a_corrected_scan_has_the_image_and_the_position_instead_of_the_mask(phantom, tmp_path):
    (made,) = write_corrected([corrected(phantom)], tmp_path / "out")
    before, after = open_labelled_dicom(phantom), open_labelled_dicom(made)
    assert made.name == phantom.name
    assert after.read_mask is None
    assert [(p.object, p.voxels_zyx) for p in after.points] == [("jaw", (3.5, 4.0, 5.25))]
    assert after.grid == before.grid
    depth = SCAN_SHAPE[0]
    np.testing.assert_array_equal(after.read_image(0, depth), before.read_image(0, depth))


def test_it_is_made_anew_only_for_another_position_or_image(phantom, tmp_path):
    def made(scan):
        (path,) = write_corrected([scan], tmp_path / "out")
        return path.stat().st_mtime_ns, path.stat().st_ino

    first = made(corrected(phantom))
    assert made(corrected(phantom)) == first
    second = made(corrected(phantom, at=(3.5, 4.0, 5.0)))
    assert second != first
    phantom.touch()
    assert made(corrected(phantom, at=(3.5, 4.0, 5.0))) != second


def test_other_positions_leave_the_files_of_a_training_that_runs(phantom, tmp_path):
    (first,) = write_corrected([corrected(phantom)], tmp_path / "out")
    (second,) = write_corrected([corrected(phantom, at=(3.5, 4.0, 5.0))], tmp_path / "out")
    found = [open_labelled_dicom(path).points[0].voxels_zyx for path in (first, second)]
    assert found == [(3.5, 4.0, 5.25), (3.5, 4.0, 5.0)]


def test_nothing_of_others_is_overwritten_and_no_link_followed(phantom, tmp_path):
    (path,) = write_corrected([corrected(phantom)], tmp_path / "out")
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match="jawloc would overwrite it; move it away first"):
        write_corrected([corrected(phantom)], tmp_path / "out")
    assert path.read_bytes() == b"mine"
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(InputError, match="is a link"):
        write_corrected([corrected(phantom)], tmp_path / "link")


def test_another_slice_makes_it_anew(tmp_path):
    """A folder of slices has the same time when one of them is rewritten."""
    slices = tmp_path / "fish"
    slices.mkdir()
    for number in range(6):
        tifffile.imwrite(slices / f"{number}.tif", np.full((8, 9), number, np.uint16))
    (before,) = write_corrected([corrected(slices)], tmp_path / "out")
    tifffile.imwrite(slices / "0.tif", np.full((8, 9), 700, np.uint16))
    (after,) = write_corrected([corrected(slices)], tmp_path / "out")
    assert open_labelled_dicom(before).read_image(0, 1).max() == 0
    assert open_labelled_dicom(after).read_image(0, 1).max() == 700


def test_every_scan_that_cannot_be_used_has_a_line_before_any_is_written(phantom, tmp_path):
    outside = corrected(phantom, at=(99.0, 4.0, 5.0))
    no_scan = tmp_path / "no.tif"
    no_scan.write_bytes(b"no picture")
    with pytest.raises(InputError) as refused:
        write_corrected([corrected(phantom), outside, corrected(no_scan)], tmp_path / "out")
    first, second = str(refused.value).splitlines()
    assert first.startswith("review.csv, line 2: a point must lie in its scan")
    assert second.startswith("no.tif: ")
    assert [*(tmp_path / "out").rglob("*.dcm")] == []


def test_a_disk_without_room_for_all_is_told_before_any_is_written(phantom, tmp_path, monkeypatch):
    needed = 2 * np.prod(SCAN_SHAPE)
    place = "jawloc.scans.convert.positioned.free_bytes"
    monkeypatch.setattr(place, lambda _: needed - 1)
    with pytest.raises(InputError, match=rf"of 1 reviewed scans need {needed} bytes; its disk has"):
        write_corrected([corrected(phantom)], tmp_path / "out")
    assert [*(tmp_path / "out").rglob("*.dcm")] == []
    monkeypatch.setattr(place, lambda _: needed)
    assert len(write_corrected([corrected(phantom)], tmp_path / "out")) == 1
    monkeypatch.setattr(place, lambda _: 0)
    assert len(write_corrected([corrected(phantom)], tmp_path / "out")) == 1  # it is there
