"""Voxels without a grey value, in every format that can hold them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans.convert import convert, plan_conversion
from jawloc.scans.downsample import downsample_image
from jawloc.scans.padding import without_padding
from jawloc.scans.reading import open_scan, read_scan
from jawloc.scans.scan import scan_in_memory
from tests.scans.convert.test_convert import save

SHAPE = (6, 5, 40)
IMAGE = np.random.default_rng(0).uniform(2, 7, SHAPE).astype(np.float32)
IMAGE[3, 4, 5] = 1.5  # the lowest grey value
FILES = ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.tif", "slices")


def padded(value: float, image: np.ndarray = IMAGE) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of whose voxels 30 hold the value, and what should be read of it."""
    holes = np.zeros(image.shape, bool)
    holes[0, 0, :20] = holes[4, 2, 30:] = True
    return np.where(holes, np.array(value, image.dtype), image), np.where(holes, 1.5, image)


def write(path: Path, image: np.ndarray) -> Path:
    if path.suffix:
        save(path, image)
        return path
    path.mkdir()
    for number, plane in enumerate(image):
        tifffile.imwrite(path / f"{number:03d}.tif", plane)
    return path


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.finfo("f4").min, 1e31, -9999, 1e5])
def test_a_voxel_without_a_grey_value_is_read_as_the_lowest_one_and_counted(tmp_path, name, value):
    """Regression: NaN was accepted in NIfTI and refused elsewhere, -3.4e38 was averaged."""
    image, expected = padded(value)
    path = write(tmp_path / name, image)
    with pytest.warns(UserWarning, match=r"30 of 1200 voxels have no grey value") as caught:
        got = read_scan(path)
    np.testing.assert_array_equal(got.image, expected)
    assert [str(w.message).split(": ")[0] for w in caught] == [path.name]
    assert str(caught[0].message).endswith("the lowest one, 1.5")


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
def test_integers_of_32_bits_may_have_padding_too(tmp_path, dtype):
    whole = np.random.default_rng(1).integers(20, 900, SHAPE).astype(dtype)
    extreme = np.iinfo(dtype).min if dtype == "int32" else np.iinfo(dtype).max
    image = whole.copy()
    image[:, 0, :5] = extreme
    with pytest.warns(UserWarning, match="30 of 1200"):
        got = read_scan(write(tmp_path / "a.mha", image)).image
    assert got.dtype == dtype
    rest = image != extreme
    np.testing.assert_array_equal(got[rest], image[rest])
    assert set(got[~rest]) == {image[rest].min()}


SHORT = np.random.default_rng(3).integers(-1000, 3000, SHAPE).astype(np.int16)


@pytest.mark.parametrize("name", FILES)
def test_the_lowest_number_of_16_bits_far_from_the_others_is_padding(tmp_path, name):
    """Regression: it was averaged into the border, unlike that of 32 bits."""
    image = SHORT.copy()
    image[:, 0, :5] = -32768
    with pytest.warns(UserWarning, match=r"30 of 1200 voxels have no grey value \(-32768\)"):
        got = read_scan(write(tmp_path / name, image)).image
    assert got.dtype == np.int16
    rest = image > -32768
    np.testing.assert_array_equal(got[rest], image[rest])
    assert set(got[~rest]) == {image[rest].min()}


@pytest.mark.parametrize(
    "image",
    [
        IMAGE,
        np.where(SHORT > 2000, np.int16(-32768), SHORT * 10),  # within the reach of the others
        np.where(SHORT > 2000, np.int16(-32767), SHORT),
        np.where(SHORT > 0, np.int16(-32768), SHORT // 100 * 100),  # few values: labels
        np.where(IMAGE < 4, np.float32(-1000), IMAGE * 500),  # air of a CT in Hounsfield units
        np.where(IMAGE < 6.5, np.float32(0), IMAGE),  # a masked image
        np.eye(40, dtype=np.float32)[None, :5].repeat(6, 0) * 70_000,  # labels
        np.full(SHAPE, np.float32(-5)),
        np.where(np.arange(1200).reshape(SHAPE) == 7, np.float32(1e9), IMAGE),  # one hot voxel
    ],
    ids=[
        "plain",
        "wide",
        "another number",
        "few numbers",
        "air",
        "masked",
        "labels",
        "constant",
        "hot",
    ],
)
def test_what_may_be_a_grey_value_stays(tmp_path, image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_scan(write(tmp_path / "a.mha", image)).image, image)


def test_a_negative_slope_makes_the_highest_stored_value_the_lowest_grey_value():
    image, _ = padded(np.nan)
    scan = scan_in_memory(Path("a.mha"), image, Grid(SHAPE))
    scan = without_padding(replace(scan, rescale_slope=-1.0, rescale_intercept=10.0))
    real = np.isfinite(image)
    with pytest.warns(UserWarning, match=f"the lowest one, {10 - image[real].max():g}"):
        got = scan.read_grey_values(0, SHAPE[0])
    np.testing.assert_allclose(got[~real], 10 - image[real].max(), rtol=1e-6)
    np.testing.assert_allclose(got[real], 10 - image[real], rtol=1e-6)


def test_slabs_and_the_downsampled_image_do_not_depend_on_how_a_scan_is_read(tmp_path, monkeypatch):
    image, expected = padded(-np.inf)
    scans = [
        open_scan(write(tmp_path / name, i)) for name, i in (("a.mha", image), ("b.mha", expected))
    ]
    monkeypatch.setattr("jawloc.scans.scan.SLAB_BYTES", 100)
    with pytest.warns(UserWarning, match=r"a\.mha"):
        got = downsample_image(scans[0], (3, 2, 9))
    np.testing.assert_array_equal(got, downsample_image(scans[1], (3, 2, 9)))
    np.testing.assert_array_equal(scans[0].read_image(4, 5), expected[4:5])


def test_a_scan_without_any_grey_value_is_refused(tmp_path):
    path = write(tmp_path / "a.mha", np.full(SHAPE, np.float32(np.nan)))
    with pytest.raises(InputError, match=r"^a\.mha: a scan needs grey values; all 1200 voxels"):
        read_scan(path)


def converted(tmp_path: Path, image: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the grey values of the labelled DICOM, and the notes on it."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 2, 2] = 1
    save(tmp_path / "a.mha", image)
    save(tmp_path / "a_mask.mha", mask)
    (item,) = plan_conversion(tmp_path, tmp_path, tmp_path / "out")
    done = convert(item)
    assert done.skip_reason is None
    return read_scan(done.target).image, "; ".join(done.notes)


@pytest.mark.parametrize("value", [np.finfo("f4").min, np.nan, -9999.0])
def test_padding_does_not_cost_a_labelled_dicom_its_grey_values(tmp_path, value):
    """Regression: -3.4e38 made the slope 5e33, and nothing was left of the grey values."""
    image, expected = padded(value)
    with pytest.warns(UserWarning, match="30 of 1200"):
        got, notes = converted(tmp_path, image)
    np.testing.assert_allclose(got, expected, atol=(7 - 1.5) / 65535)
    assert "clipped" not in notes


def test_hot_voxels_are_clipped_and_counted(tmp_path):
    """Regression: one voxel of 1e9 made the slope 15,300."""
    image = IMAGE.copy()
    image[2, 2, 2], image[5, 4, 3] = 1e9, -1e9
    got, notes = converted(tmp_path, image)
    cold = np.abs(image) < 1e8
    np.testing.assert_allclose(got[cold], image[cold], atol=(7 - 1.5) / 65535)
    np.testing.assert_allclose([got[2, 2, 2], got[5, 4, 3]], [image[cold].max(), 1.5], rtol=1e-5)
    assert notes.endswith("2 voxels far outside the others were clipped")


def test_whole_numbers_with_a_hot_voxel_stay_whole(tmp_path):
    image = np.random.default_rng(2).integers(100, 900, SHAPE).astype(np.int32)
    image[2, 2, 2] = 2_000_000_000
    got, _ = converted(tmp_path, image)
    cold = image < 1000
    np.testing.assert_array_equal(got[cold], image[cold])
    assert got[2, 2, 2] == image[cold].max()


def test_bright_voxels_within_reach_keep_their_grey_values(tmp_path):
    """An implant five times as bright as the rest is no fault."""
    image = IMAGE.copy()
    image[2, 2, 2] = 35.0
    got, notes = converted(tmp_path, image)
    assert got[2, 2, 2] == pytest.approx(35.0, rel=1e-6)
    assert "clipped" not in notes


def test_a_label_far_from_the_others_is_no_padding(tmp_path):
    """Regression: of a labelmap with many labels, one of a large number was read as the lowest."""
    labels = np.arange(1200, dtype=np.float32).reshape(SHAPE) % 20
    labels[2, 3:5, 4:9] = 90_000
    path = write(tmp_path / "labels.nii.gz", labels)
    scan = open_scan(path, is_label=True)
    np.testing.assert_array_equal(scan.read_image(0, SHAPE[0]), labels)
