"""One scan in every format that can hold it: the same grey values, position and identity."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile

from jawloc.geometry import Grid
from jawloc.inference.crop import crop_box_around, read_crop
from jawloc.inference.crop_files import CROP_ENDINGS, write_crop
from jawloc.inference.out_of_distribution import image_features
from jawloc.phantom import make_phantom
from jawloc.scans.cache import CacheConfig, build_cache, open_example
from jawloc.scans.convert import convert, plan_conversion
from jawloc.scans.dicom import open_labelled_dicom, write_labelled_dicom_slabs
from jawloc.scans.downsample import downsample, downsample_image
from jawloc.scans.reading import open_scan, read_scan
from jawloc.training.intensity import grey_percentiles
from jawloc.training.provenance import identify
from tests.inference.test_locator import SIZE, make_locator

SHAPE, SPACING = (48, 24, 24), (0.03, 0.02, 0.02)
MASK = np.zeros(SHAPE, np.uint8)
MASK[30:40, 8:15, 6:13] = 1


def volume(kind: str) -> np.ndarray:
    """Return a phantom's grey values on another scale, in their own type."""
    values = make_phantom(0, SHAPE).image.astype(np.float64)
    values = (values - values.min()) / np.ptp(values)
    if kind == "fractions":
        return (-1.3 + 4 * values).astype(np.float32)
    highest, dtype = {"16-bit": (40_000, "u2"), "8-bit": (255, "u1"), "few": (5, "u1")}[kind]
    return np.rint(values * highest).astype(dtype)


KINDS = ("fractions", "16-bit", "8-bit", "few")


def save_volume(path: Path, image: np.ndarray) -> None:
    itk = SimpleITK.GetImageFromArray(image)
    itk.SetSpacing(SPACING[::-1])
    SimpleITK.WriteImage(itk, str(path))


def as_integers(image: np.ndarray, dtype: str) -> tuple[np.ndarray, float, float]:
    """Return integers that span a type, and the slope and intercept that lead back."""
    limits = np.iinfo(dtype)
    low, slope = float(image.min()), float(np.ptp(image.astype(float))) / (limits.max - limits.min)
    slope = float(np.float32(slope))
    stored = np.rint((image - low) / slope + limits.min).clip(limits.min, limits.max)
    return stored.astype(dtype), slope, low - slope * limits.min


def save_scaled_nifti(path: Path, image: np.ndarray, dtype: str) -> None:
    stored, slope, intercept = as_integers(image, dtype)
    save_volume(path, stored)
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, slope, intercept)  # scl_slope and scl_inter
    path.write_bytes(content)


def save_scaled_dicom(path: Path, image: np.ndarray, dtype: str) -> None:
    stored, *rescale = as_integers(image, dtype)
    slabs = [(stored, MASK)]
    write_labelled_dicom_slabs(
        path, slabs, Grid(SHAPE, SPACING), np.dtype(dtype), rescale=(rescale[0], rescale[1])
    )


def converted(image_path: Path, folder: Path) -> Path:
    save_volume(folder / "label" / f"{image_path.name.split('.')[0]}.nrrd", MASK)
    (item,) = plan_conversion(image_path, next((folder / "label").iterdir()), folder / "out")
    assert convert(item).skip_reason is None
    return item.target


def in_every_format(image: np.ndarray, folder: Path) -> dict[str, Path]:
    for name in ("label", "again", "again/label"):
        (folder / name).mkdir()
    floats = image.astype(np.float32)
    paths = {name: folder / name for name in ("f.nii", "f.nii.gz", "f.nrrd", "f.mha", "f.mhd")}
    for path in paths.values():
        save_volume(path, floats)
    for name, values in (("f.tif", floats), ("own.tif", image)):
        paths[name] = folder / name
        tifffile.imwrite(paths[name], values, photometric="minisblack")
    for name in ("own.nii", "own.nrrd", "own.mha"):
        paths[name] = folder / name
        save_volume(paths[name], image)
    for dtype in ("int16", "uint16"):
        paths[f"{dtype}.nii"] = folder / f"{dtype}.nii"
        save_scaled_nifti(paths[f"{dtype}.nii"], image, dtype)
        paths[f"{dtype}.dcm"] = folder / f"{dtype}.dcm"
        save_scaled_dicom(paths[f"{dtype}.dcm"], image, dtype)
    paths["converted"] = converted(paths["f.nii"], folder)
    paths["converted twice"] = converted(paths["converted"], folder / "again")
    return paths


@pytest.mark.parametrize("kind", KINDS)
def test_one_scan_is_the_same_in_every_format(tmp_path, kind):
    image = volume(kind)
    paths = in_every_format(image, tmp_path)
    span = float(np.ptp(image.astype(float)))
    locator = make_locator()
    expected = downsample_image(open_scan(paths["f.nii"]), SIZE)
    place = locator.predict(expected).points_voxels
    known = identify("a", "", expected)
    # rounding to 16 bits; from the span on at which means are, to whole grey values
    close = span / 65535 if kind != "16-bit" else 0.5 + span / 65535
    for name, path in paths.items():
        scan = open_scan(path)
        small = downsample_image(scan, SIZE)
        np.testing.assert_allclose(small, expected, rtol=0, atol=close, err_msg=name)
        full = read_scan(path).image
        np.testing.assert_allclose(full, image, rtol=0, atol=0.51 * span / 65535, err_msg=name)
        found = grey_percentiles(small, (1, 50, 99.5))
        np.testing.assert_allclose(
            found, grey_percentiles(expected, (1, 50, 99.5)), rtol=0, atol=close, err_msg=name
        )
        found, others = (
            image_features(small).grey_values,
            image_features(expected).grey_values,
        )
        assert found == pytest.approx(others, abs=close), name
        prediction = locator.predict(small)
        np.testing.assert_allclose(prediction.points_voxels, place, rtol=0, atol=0.01, err_msg=name)
        assert identify("a", "", small).is_same_image(known), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["converted", "int16.dcm"])
def test_a_cached_example_has_the_grey_values_of_its_scan(tmp_path, kind, name):
    image = volume(kind)
    source = in_every_format(image, tmp_path)[name]
    config = CacheConfig(dicom_dirs=(str(source.parent),), downsampled_dicom_size=SIZE)
    (cached,) = build_cache([source], config, base=tmp_path, progress=False).cached
    example = open_example(cached, {"jaw": None}).read()
    small = downsample(open_labelled_dicom(source), SIZE)
    step = float(np.ptp(small.image.astype(float))) / 65535
    np.testing.assert_allclose(example.image, small.image, rtol=0, atol=0.51 * step)
    assert example.content_hash == small.content_hash
    file = pydicom.dcmread(cached)  # any viewer sees the same
    stored = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
    np.testing.assert_allclose(example.image, stored, rtol=0, atol=0.01 * step)


@pytest.mark.parametrize("ending", CROP_ENDINGS.values())
def test_a_crop_has_the_grey_values_of_its_scan(tmp_path, ending):
    """A DICOM's crop held stored values, in formats that have no slope too."""
    image = volume("fractions")
    paths = in_every_format(image, tmp_path)
    window = crop_box_around((34, 11, 9), (16, 12, 12), SHAPE)
    step = 4 / 65535  # of the DICOM's rescale, and at most of the crop's own
    inside = tuple(slice(a, a + n) for a, n in zip(window.start_zyx, window.size_zyx, strict=True))
    for name in ("f.nii", "converted", "uint16.dcm", "int16.dcm"):
        scan = open_scan(paths[name])
        crop = read_crop(scan, window)
        path = tmp_path / f"crop of {name.replace('.', '_')}{ending}"
        write_crop(path, crop, window, scan)
        found = read_scan(path).image
        np.testing.assert_allclose(found, image[inside], rtol=0, atol=1.1 * step, err_msg=name)


@pytest.mark.parametrize("value", [np.nan, -3.4e38, np.inf])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_padding_moves_no_position(tmp_path, value, ending):
    """Regression: `jawloc locate` ended with "cannot convert float NaN to integer"."""
    image = volume("fractions")
    clean, padded = image.copy(), image.copy()
    clean[:, :3], padded[:, :3] = image[:, 3:].min(), value
    locator = make_locator()
    found = []
    for name, content in (("clean", clean), ("padded", padded)):
        save_volume(tmp_path / f"{name}{ending}", content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(locator.locate(tmp_path / f"{name}{ending}")[0])
    np.testing.assert_array_equal(found[0].point_voxels, found[1].point_voxels)
    assert found[0].point_mm == found[1].point_mm
