"""DICOM folders as they come: which of their files are the scan, and what is said of the others."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans.convert import convert, plan_conversion
from jawloc.scans.dicom import open_labelled_dicom, write_labelled_dicom
from jawloc.scans.listing import list_scans
from jawloc.scans.points.review import Review, write_review
from jawloc.scans.reading import open_scan, read_scan
from jawloc.scans.scan import ScanPoint
from tests.lab import write_lab_dicom
from tests.scans.test_volumes import write_series

IMAGE = np.random.default_rng(0).integers(0, 4000, (8, 5, 4)).astype(np.uint16)
PLAIN = {"RescaleSlope": 1, "RescaleIntercept": 0}
OTHER_WAY = [0, 1, 0, 0, 0, -1]  # an orientation across that of `write_series`


def add(folder: Path, name: str, image: np.ndarray = IMAGE, **change) -> str:
    """Write a series into a folder, each file named after it; return the series' UID."""
    write_series(folder / "new", image, **PLAIN | {"SeriesDescription": name} | change)
    uid = ""
    for path in sorted((folder / "new").iterdir()):
        uid = pydicom.dcmread(path).SeriesInstanceUID
        path.rename(folder / f"{name}_{path.name}")
    (folder / "new").rmdir()
    return uid


def change_slice(path: Path, **change) -> None:
    ds = pydicom.dcmread(path)
    for keyword, value in change.items():
        setattr(ds, keyword, value)
    ds.save_as(path)


def said_of(folder: Path, **how) -> tuple[np.ndarray, list[str]]:
    """Read a folder's scan; return its grey values and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scan = open_scan(folder, **how)
    grey = scan.read_grey_values(0, scan.grid.shape_zyx[0])
    return grey, [str(one.message) for one in caught]


# --- several series --------------------------------------------------------------------------


def test_of_several_series_the_named_one_is_read(tmp_path):
    first, second = add(tmp_path, "a"), add(tmp_path, "b", IMAGE + 1)
    for uid, expected in ((first, IMAGE), (second, IMAGE + 1)):
        grey, said = said_of(tmp_path, series=[uid])
        np.testing.assert_array_equal(grey, expected)
        assert said == []


def test_without_a_name_all_series_are_listed_in_one_sentence(tmp_path):
    first, second = add(tmp_path, "bone window"), add(tmp_path, "soft", IMAGE[:5])
    with pytest.raises(InputError) as info:
        open_scan(tmp_path)
    assert str(info.value) == (
        f"{tmp_path.name}: a folder must hold one DICOM series; it holds "
        + ", ".join(sorted([f"{first} (bone window, 8 slices)", f"{second} (soft, 5 slices)"]))
        + ": choose one with --series UID, where the command has this option, or leave only one in "
        "the folder"
    )


@pytest.mark.parametrize("series", [["1.2.3"], None])
def test_a_series_that_is_not_there_is_refused_and_so_are_two(tmp_path, series):
    both = [add(tmp_path, "a"), add(tmp_path, "b")]
    named = series or both
    with pytest.raises(InputError, match=rf"--series must name one .*{both[0]} \(a, 8 slices\)"):
        open_scan(tmp_path, series=named)


def test_the_only_series_that_is_a_volume_is_read_and_that_is_said(tmp_path):
    add(tmp_path, "scout", IMAGE[:3], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    add(tmp_path, "dose", IMAGE[:1])
    uid = add(tmp_path, "fish")
    grey, said = said_of(tmp_path)
    np.testing.assert_array_equal(grey, IMAGE)
    assert said == [
        f"{tmp_path.name}: of 3 DICOM series only {uid} (fish, 8 slices) is a volume: it is read"
    ]


def test_an_enhanced_file_beside_localisers_is_the_scan(tmp_path):
    add(tmp_path, "scout", IMAGE[:3], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_labelled_dicom(tmp_path / "vol.dcm", IMAGE, IMAGE > 9, Grid(IMAGE.shape))
    grey, said = said_of(tmp_path)
    np.testing.assert_array_equal(grey, IMAGE)
    assert "only" in said[0]
    assert "is a volume: it is read" in said[0]
    assert [scan.path for scan in list_scans([tmp_path])] == [tmp_path]


# --- localisers, copies, files that aren't slices ----------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"ImageType": ["DERIVED", "LOCALIZER"]}, {"ImageOrientationPatient": OTHER_WAY}],
    ids=["by its type", "by its orientation"],
)
def test_a_localiser_within_the_series_is_left_out(tmp_path, change):
    add(tmp_path, "a")
    scout = pydicom.dcmread(tmp_path / "a_000.dcm")
    for keyword, value in change.items():
        setattr(scout, keyword, value)
    scout.Rows, scout.Columns = 2, 2
    scout.PixelData = bytes(8)
    scout.save_as(tmp_path / "scout.dcm")
    grey, said = said_of(tmp_path)
    np.testing.assert_array_equal(grey, IMAGE)
    assert said == [f"{tmp_path.name}: localisers are left out: scout.dcm"]


def test_exact_copies_of_slices_are_left_out(tmp_path):
    add(tmp_path, "a")
    for number in (0, 3, 7):
        path = tmp_path / f"a_00{number}.dcm"
        (tmp_path / f"copy of {number}.dcm").write_bytes(path.read_bytes())
    grey, said = said_of(tmp_path)
    np.testing.assert_array_equal(grey, IMAGE)
    names = ", ".join(sorted(said[0].split(": ")[2].split(", ")))
    assert names == "copy of 0.dcm, copy of 3.dcm, copy of 7.dcm"
    assert len(said) == 1


def test_a_series_saved_twice_is_read_once(tmp_path):
    add(tmp_path, "a", ImagePositionPatient=None)  # goes by InstanceNumber
    for path in list(tmp_path.iterdir()):
        (tmp_path / f"b{path.name}").write_bytes(path.read_bytes())
    grey, said = said_of(tmp_path)
    np.testing.assert_array_equal(grey, IMAGE[::-1])
    assert said[0].endswith("and 5 more")


def test_two_slices_at_one_place_that_differ_are_refused_by_name(tmp_path):
    add(tmp_path, "a")
    ds = pydicom.dcmread(tmp_path / "a_000.dcm")
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(tmp_path / "echo.dcm")
    with pytest.raises(InputError, match=r"a_000\.dcm and echo\.dcm share one and differ"):
        open_scan(tmp_path)


def test_files_that_are_no_slices_are_ignored(tmp_path):
    add(tmp_path, "a")
    for name in ("Thumbs.db", ".DS_Store", "README", "notes.txt", "preview.jpg"):
        (tmp_path / name).write_text("no scan" * 99)
    write_dicomdir(tmp_path / "DICOMDIR")
    report = pydicom.dcmread(tmp_path / "a_000.dcm")
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    report.SeriesInstanceUID = "1.2.3"
    report.save_as(tmp_path / "report.dcm")
    for path in tmp_path.glob("a_*.dcm"):
        path.rename(path.with_suffix(""))
    grey, said = said_of(tmp_path)
    np.testing.assert_array_equal(grey, IMAGE)
    assert said == []
    assert [scan.path for scan in list_scans([tmp_path])] == [tmp_path]


def write_dicomdir(path: Path) -> None:
    ds = Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds.DirectoryRecordSequence = []
    ds.save_as(path, enforce_file_format=True)


# --- positions --------------------------------------------------------------------------------


def at(*depths: str, **more):
    return {
        "ImagePositionPatient": lambda n: ["0", "0", depths[n]],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        **more,
    }


@pytest.mark.parametrize(
    ("depths", "spacing"),
    [
        # every 0.0215 mm, written with three decimals: the steps differ by 5 %
        (["0", "0.022", "0.043", "0.065", "0.086", "0.108", "0.129", "0.151"], 0.151 / 7),
        (["0", "1.004", "2", "3", "4", "5.004", "6", "7"], 1.0),  # within 1 %
        (["-7", "-6", "-5", "-4", "-3", "-2", "-1.0005", "0"], 1.0),
        (["0", "3", "5", "8", "10", "13", "15", "18"], 18 / 7),  # every 2.5 mm, without decimals
    ],
)
def test_positions_a_rounding_apart_are_even(tmp_path, depths, spacing):
    """Regression: positions rounded to 1 µm were refused where voxels are 21.5 µm long."""
    add(tmp_path, "a", **at(*depths))
    scan = open_scan(tmp_path)
    assert scan.grid.spacing_mm_zyx == pytest.approx((spacing, 0.02, 0.03))
    np.testing.assert_array_equal(scan.read_grey_values(0, 8), IMAGE)


@pytest.mark.parametrize(
    ("depths", "gap"),
    [
        (["0", "1", "2", "3", "5", "6", "7", "8"], r"2 mm, .* others 1 mm \(1 slice missing\)"),
        (["0", "1", "2", "3", "4", "5", "6", "9"], r"3 mm, .* others 1 mm \(2 slices missing\)"),
        (["0", "1.3", "2", "3", "4", "5", "6", "7"], r"(1\.3|0\.7) mm, between most others 1 mm"),
        (["0", "1", "2", "3", "4", "5", "6.26", "7.26"], r"1\.26 mm, between most others 1 mm"),
    ],
)
def test_missing_slices_are_refused_and_the_gap_is_named(tmp_path, depths, gap):
    add(tmp_path, "a", **at(*depths))
    with pytest.raises(InputError, match=rf"slices must be evenly spaced; .*it is {gap}$"):
        open_scan(tmp_path)


def test_the_gap_is_named_with_its_files_and_how_many_slices_it_lacks(tmp_path):
    add(tmp_path, "a", **at("0", "1", "2", "3", "5", "6", "7", "8"))
    with pytest.raises(InputError) as info:
        open_scan(tmp_path)
    # the fourth and the fifth file that `write_series` wrote
    assert str(info.value) == (
        f"{tmp_path.name}: slices must be evenly spaced; from a_000.dcm to a_007.dcm it is 2 mm, "
        "between most others 1 mm (1 slice missing)"
    )


def test_frames_that_go_to_and_fro_are_refused(tmp_path):
    """Regression: only the lengths of the steps were compared, not their directions."""
    from tests.scans.test_dicom import frames_at

    write_lab_dicom(tmp_path / "a.dcm", IMAGE[:4], None, frames_at(0, 1, 0, 1))
    with pytest.raises(InputError, match=r"a\.dcm: .*; frame 1 and frame 3 share one"):
        open_scan(tmp_path / "a.dcm")


def test_a_slice_without_a_position_among_others_is_refused_by_name(tmp_path):
    add(tmp_path, "a", ImagePositionPatient=lambda n: None if n == 3 else [0, 0, n])
    with pytest.raises(InputError, match=r"all slices or none must have .*; a_000\.dcm of 8 have"):
        open_scan(tmp_path)


def test_the_spacing_is_rows_then_columns_in_mm(tmp_path):
    """PixelSpacing is the distance of the rows, then of the columns, in mm (DICOM PS3.3)."""
    add(tmp_path, "a", **at(*map(str, range(8)), PixelSpacing=[0.25, 0.5]))
    assert open_scan(tmp_path).grid == Grid((8, 5, 4), (1.0, 0.25, 0.5))


# --- MONOCHROME1 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "stored", "expected"),
    [
        ({}, IMAGE, 65535 - IMAGE.astype(int)),
        ({"BitsStored": 12, "HighBit": 11}, IMAGE, 4095 - IMAGE.astype(int)),
        ({"PixelRepresentation": 1}, IMAGE.astype(np.int16) - 9, 8 - IMAGE.astype(int)),
        ({"RescaleSlope": 2}, IMAGE, 2 * (65535 - IMAGE.astype(int))),
    ],
)
def test_monochrome1_is_inverted_which_is_said_once(tmp_path, change, stored, expected):
    add(tmp_path, "a", stored, PhotometricInterpretation="MONOCHROME1", **change)
    grey, said = said_of(tmp_path)
    np.testing.assert_array_equal(grey, expected)
    assert said == [
        f"{tmp_path.name}: black is stored as the largest value (MONOCHROME1); it is inverted"
    ]


def inverted(ds: Dataset) -> None:
    ds.PhotometricInterpretation = "MONOCHROME1"


@pytest.mark.filterwarnings("ignore:.*MONOCHROME1")
def test_the_mask_of_an_inverted_image_stays(tmp_path):
    mask = (IMAGE > 2000).astype(np.uint8)
    write_lab_dicom(tmp_path / "a.dcm", IMAGE, mask, inverted)
    scan = open_labelled_dicom(tmp_path / "a.dcm")
    np.testing.assert_array_equal(scan.read_image(0, 8), 65535 - IMAGE)
    np.testing.assert_array_equal(scan.read_mask(0, 8), mask)


@pytest.mark.filterwarnings("ignore:.*MONOCHROME1")
def test_label_values_of_monochrome1_are_as_stored(tmp_path):
    mask = (IMAGE > 2000).astype(np.uint16)
    for name, voxels in (("images", IMAGE), ("labels", mask)):
        write_series(
            tmp_path / name / "a", voxels, PhotometricInterpretation="MONOCHROME1", **PLAIN
        )
    (item,) = plan_conversion(tmp_path / "images", tmp_path / "labels", tmp_path / "out")
    assert convert(item).skip_reason is None
    written = read_scan(item.target)
    np.testing.assert_array_equal(written.image, 65535 - IMAGE)
    np.testing.assert_array_equal(written.mask, mask)


def test_a_named_series_is_converted_with_a_label_that_is_no_series_of_that_name(tmp_path):
    (tmp_path / "images" / "a").mkdir(parents=True)
    uid = add(tmp_path / "images" / "a", "one")
    add(tmp_path / "images" / "a", "two", IMAGE + 1)
    write_series(tmp_path / "labels" / "a", (IMAGE > 2000).astype(np.uint16), **PLAIN)
    places = (tmp_path / "images", tmp_path / "labels", tmp_path / "out")
    (item,) = plan_conversion(*places)
    assert "--series UID" in item.skip_reason
    (item,) = plan_conversion(*places, series=[uid])
    assert convert(item, series=[uid]).skip_reason is None
    np.testing.assert_array_equal(read_scan(item.target).image, IMAGE)


def test_a_position_in_a_named_series_that_was_reviewed_is_made_a_label(tmp_path, jawloc):
    """The way that docs/review.md has: a review does not say which series was located."""
    (tmp_path / "images" / "a").mkdir(parents=True)
    add(tmp_path / "images" / "a", "one")
    uid = add(tmp_path / "images" / "a", "two", IMAGE + 1)
    about = ("Ana", "2026-11-27T15:01:18Z", "m.pth", str(tmp_path / "images" / "a"))
    moved = Review("a", "jaw", "moved", (3.0, 2.0, 1.5), *about)
    write_review(tmp_path / "review.csv", [moved])
    places = [str(tmp_path / name) for name in ("images", "review.csv", "out")]
    result = jawloc("dicoms", *places, "--series", uid)
    assert result.exit_code == 0, result.output
    made = tmp_path / "out" / "a.dcm"
    np.testing.assert_array_equal(read_scan(made).image, IMAGE + 1)
    assert open_labelled_dicom(made).points == (ScanPoint("jaw", (3.0, 2.0, 1.5)),)


# --- damaged slices, and what a folder is listed as ---------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def more_rows(path: Path) -> None:
    change_slice(path, Rows=6)


def no_rows(path: Path) -> None:
    ds = pydicom.dcmread(path)
    del ds.Rows
    ds.save_as(path)


def no_pixels(path: Path) -> None:
    ds = pydicom.dcmread(path)
    del ds.PixelData
    ds.save_as(path)


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (cut, "the file is truncated"),
        (more_rows, r"pixel data must hold .*\(1, 6, 4\)"),
        (no_rows, "DICOM element Rows must be one whole number; it is None"),
        (no_pixels, "needs pixel data"),
    ],
)
def test_a_damaged_slice_is_refused_by_name(tmp_path, damage, rule):
    add(tmp_path, "a")
    damage(tmp_path / "a_003.dcm")
    with pytest.raises(InputError, match=rf"^a_003\.dcm: .*{rule}") as info:
        open_scan(tmp_path)
    assert "\n" not in str(info.value)


def test_a_damaged_slice_of_another_series_does_not_matter(tmp_path):
    uid = add(tmp_path, "a")
    add(tmp_path, "b")
    cut(tmp_path / "b_003.dcm")
    grey, _ = said_of(tmp_path, series=[uid])
    np.testing.assert_array_equal(grey, IMAGE)


@pytest.mark.parametrize(
    "change",
    [
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
        {"BitsAllocated": 32},
        {"Columns": 9},
    ],
)
def test_a_folder_of_slices_that_cannot_be_read_is_one_scan(tmp_path, change):
    """Regression: every slice of such a folder was a scan, which failed by itself."""
    add(tmp_path, "a", **change)
    assert [scan.path for scan in list_scans([tmp_path])] == [tmp_path]
    with pytest.raises(InputError):
        open_scan(tmp_path)


def test_a_folder_whose_first_and_last_slice_are_damaged_is_one_scan(tmp_path):
    add(tmp_path, "a")
    for name in ("a_000.dcm", "a_007.dcm"):
        (tmp_path / name).write_bytes(b"damaged")
    assert [scan.path for scan in list_scans([tmp_path])] == [tmp_path]


def test_a_single_slice_among_scans_is_left_out_and_that_is_said(tmp_path):
    for name in ("m.dcm", "n.dcm"):
        write_labelled_dicom(tmp_path / name, IMAGE, IMAGE > 9, Grid(IMAGE.shape))
    add(tmp_path, "a", IMAGE[:1])
    with pytest.warns(UserWarning, match=r"a_000\.dcm beside DICOM files of several slices"):
        assert [scan.name for scan in list_scans([tmp_path])] == ["m", "n"]
