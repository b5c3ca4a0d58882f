"""Splits by count and by id, grey values to network input, examples to tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans.cache import Example
from jawloc.training.dataset import (
    Split,
    SplitConfig,
    check_objects,
    choose_split,
    load_scans,
)
from jawloc.training.intensity import IntensityConfig, normalise

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


def grey_image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 4000, (12, 11, 10)).astype(np.uint16)


def example(
    scan_id: str, source: tuple[int, int, int], spacing=None, seed: int = 0
) -> SimpleNamespace:
    """Return what stands in for a cached file: its description, and `read` for the voxels."""
    full, points = Grid(source, spacing), np.array([[3.25, 4.5, 1.0], [0.0, 1.0, 2.0]])
    image = grey_image(seed)
    held = Example(
        scan_id=scan_id,
        image=image,
        mask=np.zeros_like(image, np.uint8),
        points_voxels=points,
        grid=full.resized(image.shape),
        source_grid=full,
        key="key",
        source=Path(f"{scan_id}.dcm"),
    )
    return SimpleNamespace(**vars(held), read=lambda: held)


@pytest.mark.parametrize("budget_gb", [4.0, 0.0], ids=["in memory", "read when needed"])
def test_examples_become_tensors_in_their_order(budget_gb):
    files = [example("b", (24, 22, 20), seed=1), example("a", (24, 22, 20), seed=2)]
    scans = load_scans(files, PERCENTILE, budget_gb)
    assert scans.ids == ("b", "a")
    assert scans.points.dtype == torch.float32
    expected = torch.tensor([[3.25, 4.5, 1.0], [0.0, 1.0, 2.0]])
    torch.testing.assert_close(scans.points, expected.expand(2, 2, 3))
    assert scans.grids[0] == Grid((12, 11, 10))
    assert scans.shape_zyx == (12, 11, 10)
    (images,) = scans.batches([torch.tensor([1, 0])])
    assert tuple(images.shape) == (2, 1, 12, 11, 10)
    assert images.dtype == torch.float32
    for image, seed in zip(images, (2, 1), strict=True):
        np.testing.assert_array_equal(image[0], normalise(grey_image(seed), PERCENTILE))


FIFTEEN = [example(str(seed), (24, 22, 20), seed=seed) for seed in range(15)]


@pytest.mark.parametrize("batch_size", [1, 4, 20])
def test_scans_past_the_memory_budget_give_the_same_batches(batch_size):
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0)).split(batch_size)
    held, read = (load_scans(FIFTEEN, PERCENTILE, budget) for budget in (1.0, 0.0))
    assert isinstance(held.images, torch.Tensor)
    assert not isinstance(read.images, torch.Tensor)
    pairs = list(zip(held.batches(order), read.batches(order), strict=True))
    assert len(pairs) == len(order)
    assert all(torch.equal(first, second) for first, second in pairs)


@pytest.mark.parametrize(("budget_gb", "in_memory"), [(15 * 5280e-9, True), (79000e-9, False)])
def test_the_budget_is_what_float32_voxels_take(budget_gb, in_memory):
    """12 x 11 x 10 voxels of 4 bytes are 5280 bytes a scan."""
    images = load_scans(FIFTEEN, PERCENTILE, budget_gb).images
    assert isinstance(images, torch.Tensor) is in_memory


def test_reading_stays_a_few_batches_ahead():
    """A cache of any size costs the memory of a few batches."""
    read = []
    scans = load_scans(FIFTEEN, RAW, 0.0)
    noted = replace(scans, images=lambda i: read.append(i) or torch.zeros(1, 12, 11, 10))
    batches = noted.batches(torch.arange(15).split(2))
    next(batches)
    batches.close()
    assert {0, 1} <= set(read) <= set(range(6))


def test_a_scan_that_cannot_be_read_is_named():
    def missing(number: int) -> torch.Tensor:
        raise InputError(f"{number}.dcm: gone")

    scans = replace(load_scans(FIFTEEN, RAW, 0.0), images=missing)
    with pytest.raises(InputError, match=r"3\.dcm: gone"):
        list(scans.batches([torch.tensor([3])]))


def test_an_empty_share_of_a_batch_is_an_empty_tensor():
    for budget in (1.0, 0.0):
        images = list(load_scans(FIFTEEN, RAW, budget).batches([torch.arange(2), torch.arange(0)]))
        assert [tuple(i.shape) for i in images] == [(2, 1, 12, 11, 10), (0, 1, 12, 11, 10)]


@pytest.mark.parametrize(
    ("source", "spacing", "proportions"),
    [
        ((24, 22, 20), (0.1, 0.1, 0.3), (0.2, 0.2, 0.6)),
        ((24, 22, 20), None, (2.0, 2.0, 2.0)),
        ((48, 22, 20), None, (4.0, 2.0, 2.0)),  # full-size voxels are taken to be cubes
    ],
)
def test_voxel_proportions_are_those_of_the_downsampled_grid(source, spacing, proportions):
    sizes = load_scans([example("a", source, spacing)], RAW, 1.0).voxel_sizes
    torch.testing.assert_close(sizes, torch.tensor([proportions]))


# --- which objects the scans show ------------------------------------------------------------

SIX = Split(("a", "b", "c", "d"), ("e",), ("f",))


@pytest.mark.parametrize(
    ("lower_in", "fold", "says"),
    [
        ("ef", False, "'lower' is in no training scan"),
        ("af", False, "'lower' is in no validation scan"),
        ("be", False, "'lower' is in no test scan"),
        ("f", False, "'lower' is in no training and no validation scan"),
        ("", False, "'lower' is in no scan at all"),
        ("ef", True, "'lower' is in no training scan"),
        ("aef", False, None),
        ("d", True, None),
    ],
)
def test_an_object_that_cannot_be_learned_judged_or_tested_is_refused(lower_in, fold, says):
    shown = {i: {"upper"} | ({"lower"} if i in lower_in else set()) for i in "abcdef"}
    if says is None:
        check_objects(SIX, shown, ["upper", "lower"], fold=fold)
        return
    with pytest.raises(InputError) as caught:
        check_objects(SIX, shown, ["upper", "lower"], fold=fold)
    needed = "training scan of each fold" if fold else "training, validation and test scan"
    assert str(caught.value) == f"objects: each must be in at least one {needed}; {says}"


def test_every_object_that_is_refused_is_named_in_one_sentence():
    shown = {i: {"upper"} if i in "abef" else {"lower"} for i in "abcdef"}
    with pytest.raises(InputError) as caught:
        check_objects(SIX, shown, ["upper", "lower", "otolith"])
    assert str(caught.value).endswith(
        "; 'lower' is in no validation and no test scan, 'otolith' is in no scan at all"
    )


def test_a_missing_object_is_nan_among_the_tensors():
    scans = load_scans([lacking("a")], RAW, 1.0)
    assert scans.object_names == ("upper", "lower")
    assert scans.of(["a"]).object_names == ("upper", "lower")
    assert scans.points[0].isnan().tolist() == [[False] * 3, [True] * 3]


def lacking(scan_id: str) -> SimpleNamespace:
    """Return a stand-in for a cached file whose second object is missing."""
    one = example(scan_id, (24, 22, 20))
    one.points_voxels[1] = np.nan
    one.object_names = ("upper", "lower")
    return one
