"""The modality rescale: where it is read from, what is refused, and what it changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from pydicom.dataset import Dataset

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.inference.crop import crop_box_around, read_crop
from jawloc.scans.cache import CacheConfig, build_cache, open_example
from jawloc.scans.convert import convert, plan_conversion
from jawloc.scans.dicom import open_labelled_dicom, write_labelled_dicom
from jawloc.scans.downsample import downsample_image, hash_content
from jawloc.scans.orthogonal_slices import read_orthogonal_slices
from jawloc.scans.reading import open_scan, read_scan
from tests.scans.test_downsample import scan_of
from tests.scans.test_volumes import write_series

SHAPE = (6, 5, 4)
IMAGE = np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)
MASK = np.zeros(SHAPE, np.uint8)
MASK[2:4, 1:3, 1:3] = 1


def transformation(slope, intercept) -> Dataset:
    item, group = Dataset(), Dataset()
    item.RescaleSlope, item.RescaleIntercept, item.RescaleType = slope, intercept, "US"
    group.PixelValueTransformationSequence = [item]
    return group


def write_dicom(path: Path, change) -> Path:
    write_labelled_dicom(path, IMAGE, MASK, Grid(SHAPE))
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)
    return path


def at_top(ds: Dataset) -> None:
    ds.RescaleSlope, ds.RescaleIntercept = "0.5", "-100"


def without(ds: Dataset) -> None:
    del ds.RescaleSlope, ds.RescaleIntercept


def only_an_intercept(ds: Dataset) -> None:
    del ds.RescaleSlope
    ds.RescaleIntercept = -1000


def shared(ds: Dataset) -> None:
    without(ds)
    ds.SharedFunctionalGroupsSequence = [transformation("0.5", "-100")]


def per_frame(ds: Dataset) -> None:
    without(ds)
    ds.PerFrameFunctionalGroupsSequence = [transformation(n + 1, 10 * n) for n in range(6)]


def per_frame_alike(ds: Dataset) -> None:
    without(ds)
    ds.PerFrameFunctionalGroupsSequence = [transformation("0.5", "-100")] * 6


def per_frame_beside_the_top(ds: Dataset) -> None:
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    ds.PerFrameFunctionalGroupsSequence = [transformation(n + 1, 10 * n) for n in range(6)]


def per_frame_beside_shared(ds: Dataset) -> None:
    shared(ds)
    ds.PerFrameFunctionalGroupsSequence = [transformation(n + 1, 10 * n) for n in range(6)]


FRAMES = np.arange(6)[:, None, None]


@pytest.mark.parametrize(
    ("change", "slope", "intercept"),
    [
        (at_top, 0.5, -100),
        (shared, 0.5, -100),
        (per_frame_alike, 0.5, -100),
        (only_an_intercept, 1, -1000),
        (per_frame, FRAMES + 1, 10 * FRAMES),
        # Regression: the rescale of the whole file was taken, which says nothing of its frames
        (per_frame_beside_the_top, FRAMES + 1, 10 * FRAMES),
        (per_frame_beside_shared, FRAMES + 1, 10 * FRAMES),
    ],
)
def test_grey_values_are_what_the_rescale_leads_to(tmp_path, change, slope, intercept):
    path = write_dicom(tmp_path / "a.dcm", change)
    scan = read_scan(path)
    assert scan.image.dtype == np.float32
    np.testing.assert_array_equal(scan.image, IMAGE.astype(float) * slope + intercept)
    planes, _ = read_orthogonal_slices(open_scan(path), (3, 2, 1))
    np.testing.assert_array_equal(planes.axial, scan.image[3])
    np.testing.assert_array_equal(planes.sagittal, scan.image[:, :, 1])


def test_without_a_rescale_grey_values_are_those_stored(tmp_path):
    scan = read_scan(write_dicom(tmp_path / "a.dcm", without))
    assert scan.image.dtype == np.uint16
    np.testing.assert_array_equal(scan.image, IMAGE)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    ("slope", "intercept"), [("0", "1"), ("nan", "0"), ("1", "inf"), (["1", "2"], "0")]
)
def test_a_rescale_that_cannot_be_is_refused(tmp_path, slope, intercept):
    def change(ds: Dataset) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = slope, intercept

    path = write_dicom(tmp_path / "131.dcm", change)
    with pytest.raises(InputError, match=r"^131\.dcm: RescaleSlope and .* not 0; they are") as info:
        open_labelled_dicom(path)
    assert "\n" not in str(info.value)


def test_a_table_of_grey_values_is_refused(tmp_path):
    """Stored values would be taken for grey values, which they are not."""

    def change(ds: Dataset) -> None:
        without(ds)
        table = Dataset()
        table.LUTDescriptor, table.ModalityLUTType = [4, 0, 16], "US"
        table.LUTData = np.arange(0, 400, 100, np.uint16).tobytes()
        ds.ModalityLUTSequence = [table]

    path = write_dicom(tmp_path / "131.dcm", change)
    with pytest.raises(InputError, match=r"^131\.dcm: .* has a table of them \(ModalityLUTSeq"):
        open_scan(path)


SIGNED = IMAGE.astype(np.int32) - 1000
CALIBRATION = {"cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "Gray Value"}  # of signed 16-bit scans


def save_as_imagej(path: Path, values: np.ndarray, **changes) -> None:
    tifffile.imwrite(path, values, imagej=True, metadata={**CALIBRATION, **changes})


def test_a_tiff_has_the_grey_values_of_its_calibration_by_imagej(tmp_path):
    """ImageJ and Fiji have no signed 16-bit type: such scans are saved with an intercept."""
    save_as_imagej(tmp_path / "a.tif", (SIGNED + 32768).astype(np.uint16), axes="ZYX")
    np.testing.assert_array_equal(read_scan(tmp_path / "a.tif").image, SIGNED)
    folder = tmp_path / "slices"
    folder.mkdir()
    for number, plane in enumerate((SIGNED + 32768).astype(np.uint16)):
        save_as_imagej(folder / f"{number}.tif", plane, axes="YX")
    np.testing.assert_array_equal(read_scan(folder).image, SIGNED)
    small = downsample_image(open_scan(folder), (3, 5, 4))
    np.testing.assert_allclose(small, SIGNED.reshape(3, 2, 5, 4).mean(1), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("values", "changes"),
    [(IMAGE, {"cf": 20}), (IMAGE, {"cf": 1, "c2": 0.5}), (IMAGE.astype(np.float32), {})],
)
def test_what_imagej_does_not_calibrate_linearly_stays(tmp_path, values, changes):
    save_as_imagej(tmp_path / "a.tif", values, axes="ZYX", **changes)
    found = read_scan(tmp_path / "a.tif").image
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("changes", [{"c1": 0.0}, {"c1": "nan"}, {"c0": "none"}])
def test_a_calibration_that_cannot_be_is_refused(tmp_path, changes):
    save_as_imagej(tmp_path / "fish.tif", IMAGE, axes="ZYX", **changes)
    with pytest.raises(InputError, match=r"^fish\.tif: ImageJ's calibration .*, c1 not 0; they"):
        open_scan(tmp_path / "fish.tif")


def test_a_series_whose_slices_differ_in_slope_has_true_grey_values(tmp_path):
    """As in PET: each slice's own slope counts, and neighbours stay comparable."""
    write_series(tmp_path / "fish", IMAGE, RescaleSlope=lambda n: n + 1, RescaleIntercept=-5)
    scan = open_scan(tmp_path / "fish")
    assert (scan.dtype, scan.is_rescaled) == (np.float32, False)
    np.testing.assert_array_equal(read_scan(tmp_path / "fish").image, IMAGE * (FRAMES + 1) - 5.0)
    np.testing.assert_array_equal(scan.read_image(2, 4), (IMAGE * (FRAMES + 1) - 5.0)[2:4])


CONSTANT = np.stack([np.full((5, 4), 1200 // (n + 1), np.uint16) for n in range(4)])  # times n + 1


def test_a_constant_with_another_slope_a_slice_stays_constant_wherever_it_is_read(tmp_path):
    """Regression: 1200 stored with the slopes 1 to 4 was read as 1200, 600, 400 and 300."""
    write_series(tmp_path / "pet", CONSTANT, RescaleSlope=lambda n: n + 1, RescaleIntercept=0)
    scan = open_scan(tmp_path / "pet")
    assert set(scan.read_grey_values(0, 4).ravel().tolist()) == {1200.0}
    assert set(scan.read_image(1, 3).ravel().tolist()) == {1200.0}
    assert set(downsample_image(scan, (2, 5, 4)).ravel().tolist()) == {1200.0}
    crop = read_crop(scan, crop_box_around((2.0, 2.0, 2.0), (2, 2, 2), scan.grid.shape_zyx))
    assert set(crop.ravel().tolist()) == {1200.0}
    planes, _ = read_orthogonal_slices(scan, (3, 2, 1))
    assert set(planes.sagittal.ravel().tolist()) == {1200.0}
    write_series(tmp_path / "other", CONSTANT, RescaleSlope=lambda n: n + 2, RescaleIntercept=0)
    assert hash_content(scan) != hash_content(open_scan(tmp_path / "other"))


def test_frames_of_other_slopes_are_cached_as_grey_values(tmp_path):
    """The cache's voxels, checksum and content hash are of grey values, not of stored ones."""
    (tmp_path / "dicoms").mkdir()
    path, mask = tmp_path / "dicoms" / "a.dcm", np.ones(CONSTANT.shape, np.uint8)
    write_labelled_dicom(path, CONSTANT, mask, Grid(CONSTANT.shape))
    ds = pydicom.dcmread(path)
    without(ds)
    ds.PerFrameFunctionalGroupsSequence = [transformation(n + 1, 0) for n in range(4)]
    ds.save_as(path)
    config = CacheConfig(dicom_dirs=("dicoms",), downsampled_dicom_size=(2, 5, 4))
    (cached,) = build_cache([path], config, base=tmp_path, progress=False).cached
    example = open_example(cached, {"jaw": None})
    np.testing.assert_allclose(example.read().image, 1200, rtol=1e-6)
    assert example.content_hash == hash_content(open_labelled_dicom(path))


def test_a_converted_series_keeps_what_is_stored_and_its_rescale(tmp_path):
    write_series(tmp_path / "images" / "fish", IMAGE, RescaleSlope="0.25", RescaleIntercept="-7.5")
    (tmp_path / "labels").mkdir()
    write_labelled_dicom(tmp_path / "labels" / "fish.dcm", MASK, MASK, Grid(SHAPE))
    (item,) = plan_conversion(tmp_path / "images", tmp_path / "labels", tmp_path / "out")
    done = convert(item)
    assert (done.skip_reason, done.notes) == (None, ())
    np.testing.assert_array_equal(read_scan(item.target).image, IMAGE * 0.25 - 7.5)
    assert pydicom.dcmread(item.target).pixel_array.dtype == np.uint16
    np.testing.assert_array_equal(pydicom.dcmread(item.target).pixel_array, IMAGE)


def test_the_hash_tells_another_rescale_and_stays_without_one():
    scan = scan_of(IMAGE, MASK, (1.0, 1.0, 1.0))
    # as jawloc 0.1.0 hashed it: models and caches know scans by it
    assert hash_content(scan) == (
        "3a9e972b0dbcd6ba368b7426a5a3a8a922d774e9d4c8cdbb04e11e1931239e0d"
    )
    others = [
        replace(scan, rescale_slope=0.5),
        replace(scan, rescale_intercept=-1000.0),
        replace(scan, rescale_slope=0.5, rescale_intercept=-1000.0),
    ]
    assert len({hash_content(one) for one in [scan, *others]}) == 4
