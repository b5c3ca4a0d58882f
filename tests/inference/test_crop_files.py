"""Crops as files: the voxels are the scan's, and a point in them is a point in the scan."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, voxels_to_lps_mm
from jawloc.inference.crop import CropBox, read_crop
from jawloc.inference.crop_files import CROP_ENDINGS, write_crop
from jawloc.scans.dicom import read_metadata
from jawloc.scans.reading import open_scan, read_scan
from jawloc.scans.scan import ScanFile, unplaced

SHAPE = (14, 11, 9)
TURNED = Placement((7.5, -3.25, 12.0), ((1.0, 0.0, 0.0), (0.0, 0.8, -0.6), (0.0, 0.6, 0.8)))
WINDOW = CropBox((3, 2, 1), (6, 5, 7), "centred")
PADDED = CropBox((3, -2, 1), (6, 15, 7), "padded")


def scan_of(dtype=np.uint16, spacing=(0.5, 0.25, 0.125), placement=TURNED) -> ScanFile:
    image = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    place = unplaced if placement is None else lambda: placement
    grid = Grid(SHAPE, spacing)
    return ScanFile("a", Path("a.nii"), grid, image.dtype, lambda a, b: image[a:b], None, place)


def written(folder: Path, scan: ScanFile, ending: str, window: CropBox = WINDOW) -> Path:
    path = folder / f"crop{ending}"
    write_crop(path, read_crop(scan, window), window, scan)
    assert [p.name for p in folder.iterdir()] == [path.name]  # nothing temporary
    return path


@pytest.mark.parametrize("window", [WINDOW, PADDED], ids=["inside", "padded"])
@pytest.mark.parametrize("ending", CROP_ENDINGS.values())
def test_the_voxels_are_the_windows(tmp_path, ending, window):
    scan = scan_of()
    found = read_scan(written(tmp_path, scan, ending, window)).image
    np.testing.assert_array_equal(found, read_crop(scan, window))
    assert found.dtype == np.uint16


@pytest.mark.parametrize("window", [WINDOW, PADDED], ids=["inside", "padded"])
@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".dcm"])
def test_a_point_of_the_crop_lies_where_the_same_point_of_the_scan_does(tmp_path, ending, window):
    scan = scan_of()
    crop = open_scan(written(tmp_path, scan, ending, window))
    point = np.array([2.25, 3.5, 4.75])
    in_scan = voxels_to_lps_mm(point + window.start_zyx, scan.grid, TURNED)
    in_crop = voxels_to_lps_mm(point, crop.grid, crop.read_placement())
    np.testing.assert_allclose(in_crop, in_scan, atol=1e-5)
    assert crop.grid.spacing_mm_zyx == pytest.approx((0.5, 0.25, 0.125))


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz", ".dcm"])
def test_without_a_place_the_scans_first_voxel_is_the_origin(tmp_path, ending):
    crop = open_scan(written(tmp_path, scan_of(placement=None), ending))
    assert crop.read_placement().origin_lps_mm_zyx == pytest.approx((1.5, 0.5, 0.125))


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])
def test_without_a_spacing_the_origin_counts_voxels(tmp_path, ending):
    path = written(tmp_path, scan_of(spacing=None, placement=None), ending)
    assert SimpleITK.ReadImage(path).GetOrigin() == pytest.approx((1, 2, 3))


def test_dicom_without_a_spacing_has_none(tmp_path):
    crop = open_scan(written(tmp_path, scan_of(spacing=None, placement=None), ".dcm"))
    assert crop.grid.spacing_mm_zyx is None


def test_another_program_finds_the_frames_of_a_dicom_crop_in_their_places(tmp_path):
    ds = pydicom.dcmread(written(tmp_path, scan_of(), ".dcm"))
    frame = ds.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence[0]
    expected = voxels_to_lps_mm(np.array([5.0, 2, 1]), scan_of().grid, TURNED)
    assert [float(v) for v in frame.ImagePositionPatient] == pytest.approx(expected[::-1])
    np.testing.assert_array_equal(ds.pixel_array, read_crop(scan_of(), WINDOW))


def test_tiff_and_dicom_carry_the_window_as_a_note(tmp_path):
    with tifffile.TiffFile(written(tmp_path, scan_of(), ".tif")) as tiff:
        note = tiff.shaped_metadata[0]
        assert tiff.series[0].axes == "ZYX"
    (tmp_path / "crop.tif").unlink()
    for found in (note, read_metadata(written(tmp_path, scan_of(), ".dcm"))):
        assert found["crop_of"] == "a.nii"
        assert found["crop_start_zyx"] == [3, 2, 1]
        assert found["spacing_mm_zyx"] == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u4", "i4", "f4", "f8", "f2", "?", ">u2"])
@pytest.mark.parametrize("ending", CROP_ENDINGS.values())
def test_grey_values_of_every_type_are_kept(tmp_path, ending, dtype):
    scan = scan_of(dtype, spacing=None, placement=None)
    window = CropBox((3, 2, 1), (5, 5, 7), "centred")  # an odd number of voxels
    found = read_scan(written(tmp_path, scan, ending, window))
    assert found.grid.shape_zyx == (5, 5, 7)
    expected = read_crop(scan, window)
    np.testing.assert_array_equal(found.image.astype(float), expected.astype(float))


def test_values_that_16_bits_cannot_hold_are_scaled_in_a_dicom_and_it_says_how(tmp_path):
    scan = scan_of("f4", spacing=None, placement=None)
    window = CropBox((0, 0, 0), (4, 4, 4), "centred")
    crop = read_crop(scan, window) / 7
    write_crop(tmp_path / "crop.dcm", crop, window, scan)
    ds = pydicom.dcmread(tmp_path / "crop.dcm")
    again = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    np.testing.assert_allclose(again, crop, atol=1e-3)


@pytest.mark.parametrize("ending", CROP_ENDINGS.values())
def test_a_crop_that_cannot_be_written_leaves_nothing(tmp_path, ending, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    crop = read_crop(scan_of(), WINDOW)
    with pytest.raises(OSError, match=rf"^{re.escape(str(tmp_path))}: the disk is full; crop"):
        write_crop(tmp_path / f"crop{ending}", crop, WINDOW, scan_of())
    assert list(tmp_path.iterdir()) == []


def test_values_that_dicom_has_not_are_refused(tmp_path):
    crop = np.full((2, 2, 2), np.nan, np.float32)
    with pytest.raises(InputError, match="must be finite"):
        write_crop(
            tmp_path / "crop.dcm", crop, CropBox((0, 0, 0), crop.shape, "centred"), scan_of()
        )
