"""Measuring: what a labelled scan says of a locator, read slab by slab."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from jawloc.errors import InputError
from jawloc.geometry import Grid, map_points
from jawloc.inference.crop import CropBox
from jawloc.inference.evaluate_scan import evaluate_scan, labels_inside
from jawloc.inference.locator import Locator, load_locator
from jawloc.scans.dicom import open_labelled_dicom, write_labelled_dicom
from jawloc.scans.dicom.writing import write_labelled_dicom_slabs
from jawloc.scans.labelled import list_labelled
from jawloc.scans.listing import ListedScan
from jawloc.scans.scan import ScanPoint
from tests.lab import write_lab_dicom, write_model

SHAPE, SMALL, SPACING = (48, 24, 24), (24, 12, 12), (0.5, 0.25, 0.2)


@dataclass(frozen=True)
class Knowing(Locator):
    """A locator that always says the same points of the downsampled grid."""

    points: tuple = ()

    def predict(self, image):
        return replace(super().predict(image), points_voxels=np.asarray(self.points, float))


@pytest.fixture
def locator(tmp_path):
    """Return a function that makes a locator of these full-size points."""

    def make(*points, labels=None):
        objects = labels or {"jaw": None}
        plain = load_locator(write_model(tmp_path / "m.pth", list(objects)))
        small = map_points(np.array(points, float), Grid(SHAPE), Grid(SMALL))
        fields = vars(replace(plain, objects=objects))
        return Knowing(**fields, points=tuple(map(tuple, small)))

    return make


@pytest.fixture
def scan(tmp_path):
    """A scan with a box of label 1 (centroid 30.5, 9.5, 11.5) and one of label 2."""
    image = np.random.default_rng(0).integers(0, 999, SHAPE).astype(np.uint16)
    mask = np.zeros(SHAPE, np.uint8)
    mask[28:34, 8:12, 10:14] = 1
    mask[10:12, 4:6, 4:6] = 2
    path = tmp_path / "fish.dcm"
    write_labelled_dicom(path, image, mask, Grid(SHAPE, SPACING))
    return ListedScan("fish", path)


def test_errors_are_from_the_full_size_centroid(locator, scan):
    labels = {"jaw": [1]}
    (m,) = evaluate_scan(locator((32.5, 6.5, 11.5), labels=labels), scan, (20, 10, 10))
    np.testing.assert_allclose(m.error.truth_voxels, (30.5, 9.5, 11.5), atol=1e-9)
    np.testing.assert_allclose(m.offset_voxels, (2, -3, 0), atol=1e-6)
    np.testing.assert_allclose(m.offset_mm, (1, -0.75, 0), atol=1e-6)
    assert m.error.error_full_size_voxels == pytest.approx(13**0.5)
    assert m.error.error_mm == pytest.approx(1.25)
    assert m.error.error_downsampled_voxels == pytest.approx(13**0.5 / 2)
    assert (m.scan_id, m.labelled_voxels) == ("fish", 6 * 4 * 4)


def test_the_share_inside_the_crop_counts_full_size_voxels(locator, scan):
    labels = {"jaw": [1]}
    (m,) = evaluate_scan(locator((30.5, 9.5, 11.5), labels=labels), scan, (6, 4, 4))
    assert (m.inside_voxels, m.inside) == (96, 1.0)
    (m,) = evaluate_scan(locator((32.5, 9.5, 11.5), labels=labels), scan, (6, 4, 4))
    assert (m.inside_voxels, m.inside) == (4 * 4 * 4, 64 / 96)
    (m,) = evaluate_scan(locator((5.0, 9.5, 11.5), labels=labels), scan, (6, 4, 4))
    assert m.inside == 0.0


def test_a_window_that_reaches_out_of_the_scan_counts_what_is_in_it(scan):
    opened = open_labelled_dicom(scan.path)
    assert labels_inside(opened, CropBox((-5, -5, -5), (99, 99, 99), "padded"), [1]) == 96
    assert labels_inside(opened, CropBox((-5, -5, -5), (99, 99, 99), "padded"), None) == 104


def test_an_object_that_a_scan_lacks_has_no_row(locator, scan):
    labels = {"jaw": [1], "otolith": [2], "tail": [9]}
    points = [(30.5, 9.5, 11.5)] * 3
    every = evaluate_scan(locator(*points, labels=labels), scan, (6, 4, 4))
    assert [m.error.object_name for m in every] == ["jaw", "otolith"]
    (one,) = evaluate_scan(locator(*points, labels=labels), scan, (6, 4, 4), ("otolith",))
    np.testing.assert_allclose(one.error.truth_voxels, (10.5, 4.5, 4.5), atol=1e-9)
    assert one.labelled_voxels == 8


def test_scans_that_tell_nothing_are_refused(locator, tmp_path):
    image = np.zeros(SHAPE, np.uint16)
    write_lab_dicom(tmp_path / "none.dcm", image, None)
    write_lab_dicom(tmp_path / "empty.dcm", image, np.zeros(SHAPE, np.uint8))
    for name, said in (("none", "with a mask in element"), ("empty", "the mask is empty")):
        listed = ListedScan(name, tmp_path / f"{name}.dcm")
        with pytest.raises(InputError, match=f"{name}.dcm: .*{said}"):
            evaluate_scan(locator((1, 1, 1)), listed, (6, 4, 4))


def test_a_scan_is_never_whole_in_memory(locator, scan, monkeypatch):
    import jawloc.scans.labelled as labelled

    most, opened = [], labelled.open_scan(scan.path)

    def watch(read):
        return lambda start, stop: most.append(stop - start) or read(start, stop)

    slabs = replace(opened, read_image=watch(opened.read_image), read_mask=watch(opened.read_mask))
    monkeypatch.setattr(labelled, "open_scan", lambda _: slabs)
    monkeypatch.setattr("jawloc.scans.scan.SLAB_BYTES", 2000)
    evaluate_scan(locator((30.5, 9.5, 11.5)), scan, (6, 4, 4))
    assert max(most) == 1
    assert len(most) == 2 * SHAPE[0] + 6  # image and mask once, and the crop's slices of the mask


def test_a_folders_scans_are_its_labelled_dicoms(scan, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "other.tif").write_bytes(b"x")
    assert [s.name for s in list_labelled([tmp_path])] == ["fish"]
    assert [s.name for s in list_labelled([tmp_path / "other.tif"])] == ["other"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.tif").write_bytes(b"x")
    with pytest.raises(InputError, match="at least one labelled DICOM"):
        list_labelled([tmp_path / "a"])


def test_downsampled_copies_are_left_out(tmp_path, phantom_folder):
    from jawloc.scans.cache import CacheConfig, build_cache

    source = next(phantom_folder.glob("*.dcm"))
    config = CacheConfig(downsampled_dicom_size=SMALL, cache_dir=str(tmp_path / "cache"))
    (copy,) = build_cache([source], config, base=tmp_path, progress=False).cached
    assert [s.path for s in list_labelled([source, tmp_path / "cache"])] == [source]
    locator = load_locator(write_model(tmp_path / "m.pth"))
    with pytest.raises(InputError, match="downsampled copy"):
        evaluate_scan(locator, ListedScan("copy", copy), (6, 4, 4))


def test_a_point_in_place_of_a_mask_gives_errors_and_no_crop_completeness(locator, scan, tmp_path):
    image = open_labelled_dicom(scan.path).read_image(0, SHAPE[0])
    points = [ScanPoint("jaw", (30.5, 9.5, 11.5)), ScanPoint(2, (10.5, 4.5, 4.5))]
    path, dtype = tmp_path / "clicked.dcm", image.dtype
    write_labelled_dicom_slabs(path, [(image, None)], Grid(SHAPE, SPACING), dtype, points=points)
    labels, clicked = {"jaw": [1], "eye": [2], "ear": [3]}, ListedScan("clicked", path)
    guesses = (32.5, 6.5, 11.5), (10.5, 4.5, 5.5), (0, 0, 0)
    jaw, eye = evaluate_scan(locator(*guesses, labels=labels), clicked, (6, 4, 4))
    masked, _ = evaluate_scan(locator(*guesses, labels=labels), scan, (6, 4, 4))
    np.testing.assert_allclose(jaw.offset_voxels, masked.offset_voxels, atol=1e-9)
    assert jaw.error.error_mm == pytest.approx(1.25)
    assert (eye.error.object_name, eye.error.error_mm) == ("eye", pytest.approx(0.2))
    for one in (jaw, eye):
        assert (one.labelled_voxels, one.inside_voxels, one.inside) == (None, None, None)
    assert masked.inside is not None
