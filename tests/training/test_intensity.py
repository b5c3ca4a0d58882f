"""Grey values to network input: gain and offset drop out, odd images stay finite."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from jawloc.training.intensity import IntensityConfig, grey_percentiles, normalise

PERCENTILE = IntensityConfig(rule="percentile", low=1.0, high=99.5)
RAW = IntensityConfig(rule="raw")


def grey_image() -> np.ndarray:
    return np.random.default_rng(0).integers(100, 4000, (12, 11, 10)).astype(np.uint16)


def test_percentiles_are_put_at_0_and_1():
    values = normalise(grey_image(), PERCENTILE)
    assert values.dtype == np.float32
    assert np.percentile(values, [1.0, 99.5]) == pytest.approx([0, 1], abs=1e-5)


@pytest.mark.parametrize(("gain", "offset"), [(1, 0), (3, 500), (7.5, -90)])
def test_percentiles_make_scanner_gain_and_offset_drop_out(gain, offset):
    image = grey_image().astype(np.float64)
    np.testing.assert_allclose(
        normalise(gain * image + offset, PERCENTILE), normalise(image, PERCENTILE), atol=1e-5
    )


def test_raw_leaves_grey_values_alone():
    values = normalise(grey_image(), RAW)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, grey_image())


@pytest.mark.parametrize("config", [PERCENTILE, RAW])
@pytest.mark.parametrize("grey", [0, 7, 65535])
def test_a_constant_image_gives_finite_values(config, grey):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = normalise(np.full((4, 4, 4), grey, np.uint16), config)
    assert np.isfinite(values).all()
    assert np.ptp(values) == 0


def test_a_nearly_constant_image_stays_within_0_and_1():
    """Both percentiles are then the background; dividing by their difference gave 1e9."""
    image = np.zeros((10, 10, 10), np.uint16)
    image[5, 5, 5] = 1000
    values = normalise(image, PERCENTILE)
    assert (values.min(), values.max()) == (0, 1)


@pytest.mark.parametrize("unit", [1e-7, 1e-12])
def test_grey_values_of_small_units_are_scaled_too(unit):
    """Regression: a range below 1e-6 counted as none, as that of phase contrast's refraction."""
    image = grey_image().astype(np.float32)
    scaled = normalise(image * np.float32(unit), PERCENTILE)
    np.testing.assert_allclose(scaled, normalise(image, PERCENTILE), atol=1e-5)


def test_rounding_is_not_taken_for_grey_values():
    image = np.full((4, 4, 4), 0.1, np.float32)
    image[0] = np.nextafter(np.float32(0.1), np.float32(1))
    assert np.ptp(normalise(image, PERCENTILE)) < 1e-6


def test_normalising_neither_changes_nor_shares_the_image():
    """Tensors are made of the result, and torch warns of arrays that can't be written."""
    image = grey_image().astype(np.float32)
    image.setflags(write=False)
    values = normalise(image, RAW)
    assert values.flags.writeable
    assert not np.shares_memory(values, image)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("size", [1, 2, 999, 3000])
def test_percentiles_are_numpys_for_every_type(dtype, size):
    """8- and 16-bit integers are counted, others sorted; more voxels than are counted at once."""
    random = np.random.default_rng(size)
    info = np.iinfo(dtype) if np.dtype(dtype).kind != "f" else np.iinfo(np.int16)
    image = random.integers(info.min, info.max, size, endpoint=True).astype(dtype)
    wanted = [0, 0.3, 1, 50, 77.7, 99.5, 100]
    expected = np.percentile(image.astype(np.float64), wanted)
    np.testing.assert_allclose(grey_percentiles(image, wanted), expected, rtol=1e-12, atol=1e-9)


def test_an_image_larger_than_what_is_counted_at_once(monkeypatch):
    monkeypatch.setattr("jawloc.training.intensity.COUNTED_VOXELS", 7)
    image = grey_image()
    assert grey_percentiles(image, [1, 99.5]) == pytest.approx(np.percentile(image, [1, 99.5]))
