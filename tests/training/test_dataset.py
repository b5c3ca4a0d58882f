"""Splits by count and by id, grey values to network input, examples to tensors."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans.cache import Example
from jawloc.training.dataset import (
    IntensityConfig,
    SplitConfig,
    choose_split,
    normalise,
    to_tensors,
)

IDS = ["104", "101", "105", "102", "103"]  # not sorted
PERCENTILE = IntensityConfig(rule="percentile", low=1.0, high=99.5)
RAW = IntensityConfig(rule="raw")


def test_by_default_all_but_the_last_two_train_the_last_but_one_validates_and_the_last_tests():
    """As the lab's script does, in sorted order."""
    split = choose_split(IDS, SplitConfig())
    assert split.train_ids == ("101", "102", "103")
    assert split.val_ids == ("104",)
    assert split.test_ids == ("105",)


@pytest.mark.parametrize(
    ("validation", "test", "expected"),
    [
        (2, 1, (["101", "102"], ["103", "104"], ["105"])),
        (1, 3, (["101"], ["102"], ["103", "104", "105"])),
        (("101",), 1, (["102", "103", "104"], ["101"], ["105"])),
        (1, ("101", "102"), (["103", "104"], ["105"], ["101", "102"])),
        (("105",), 1, (["101", "102", "103"], ["105"], ["104"])),
        (("103", "101"), ("102",), (["104", "105"], ["101", "103"], ["102"])),
        ((103,), (102, "101"), (["104", "105"], ["103"], ["101", "102"])),  # YAML reads 103 so
    ],
)
def test_counts_are_taken_from_the_end_of_what_ids_leave(validation, test, expected):
    split = choose_split(IDS, SplitConfig(validation_scans=validation, test_scans=test))
    assert [list(split.train_ids), list(split.val_ids), list(split.test_ids)] == list(expected)


@pytest.mark.parametrize("config", [SplitConfig(), SplitConfig(2, 2), SplitConfig(("104",), 1)])
def test_every_scan_is_used_for_exactly_one_purpose(config):
    split = choose_split(IDS, config)
    assert sorted(split.train_ids + split.val_ids + split.test_ids) == sorted(IDS)


@pytest.mark.parametrize(
    ("validation", "test", "says"),
    [
        (("999",), 1, ["validation_scans", "'999'", "101"]),
        (1, (999,), ["test_scans", "'999'", "101"]),
        (("101",), ("101",), ["'101'", "twice"]),
        (1, ("102", "102"), ["'102'", "twice"]),
        (1, (102, "102"), ["'102'", "twice"]),
        (2, 3, ["left to train on", "0, 2 and 3"]),
        (1, 5, ["left to train on", "0, 0 and 5"]),
        (1, 9, ["left to train on", "0, 0 and 5"]),
        (("101", "102"), ("103", "104", "105"), ["left to train on", "0, 2 and 3"]),
        ((), 1, ["one to validate", "4, 0 and 1"]),
        (1, (), ["one to test", "4, 1 and 0"]),
    ],
)
def test_a_split_that_cannot_be_is_refused_with_its_key_and_value(validation, test, says):
    with pytest.raises(InputError) as caught:
        choose_split(IDS, SplitConfig(validation_scans=validation, test_scans=test))
    assert all(part in str(caught.value) for part in says), str(caught.value)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_scans_are_refused(count):
    with pytest.raises(InputError, match=rf"at least 3 scans .*found {count}"):
        choose_split(IDS[:count], SplitConfig())


def test_the_message_on_an_unknown_id_does_not_list_hundreds_of_scans():
    with pytest.raises(InputError) as caught:
        choose_split([f"{i:03d}" for i in range(400)], SplitConfig(test_scans=("x",)))
    assert "399 (400 in all)" in str(caught.value)
    assert len(str(caught.value)) < 200


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


def test_normalising_neither_changes_nor_shares_the_image():
    """Tensors are made of the result, and torch warns of arrays that can't be written."""
    image = grey_image().astype(np.float32)
    image.setflags(write=False)
    values = normalise(image, RAW)
    assert values.flags.writeable
    assert not np.shares_memory(values, image)


def example(scan_id: str, source: tuple[int, int, int], spacing=None) -> Example:
    full, points = Grid(source, spacing), np.array([[3.25, 4.5, 1.0], [0.0, 1.0, 2.0]])
    image = grey_image()
    return Example(
        scan_id=scan_id,
        image=image,
        mask=np.zeros_like(image, np.uint8),
        points_voxels=points,
        grid=full.resized(image.shape),
        source_grid=full,
        key="key",
        source=Path(f"{scan_id}.dcm"),
    )


def test_examples_become_tensors_in_their_order():
    scans = to_tensors([example("b", (24, 22, 20)), example("a", (24, 22, 20))], PERCENTILE)
    assert scans.ids == ("b", "a")
    assert tuple(scans.images.shape) == (2, 1, 12, 11, 10)
    assert scans.images.dtype == scans.points.dtype == torch.float32
    expected = torch.tensor([[3.25, 4.5, 1.0], [0.0, 1.0, 2.0]])
    torch.testing.assert_close(scans.points, expected.expand(2, 2, 3))
    np.testing.assert_array_equal(scans.images[0, 0], normalise(grey_image(), PERCENTILE))
    assert scans.grids[0] == Grid((12, 11, 10))


@pytest.mark.parametrize(
    ("source", "spacing", "proportions"),
    [
        ((24, 22, 20), (0.1, 0.1, 0.3), (0.2, 0.2, 0.6)),
        ((24, 22, 20), None, (2.0, 2.0, 2.0)),
        ((48, 22, 20), None, (4.0, 2.0, 2.0)),  # full-size voxels are taken to be cubes
    ],
)
def test_voxel_proportions_are_those_of_the_downsampled_grid(source, spacing, proportions):
    sizes = to_tensors([example("a", source, spacing)], RAW).voxel_sizes
    torch.testing.assert_close(sizes, torch.tensor([proportions]))
