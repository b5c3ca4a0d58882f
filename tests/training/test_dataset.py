"""Grey values to network input, examples to tensors."""

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
from jawloc.training.dataset import load_scans
from jawloc.training.intensity import IntensityConfig, normalise
from jawloc.training.stage_input import pool_volume

PERCENTILE = IntensityConfig(rule="percentile", low=1.0, high=99.5)
RAW = IntensityConfig(rule="raw")


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
    return SimpleNamespace(**vars(held), label_weights=(), read=lambda: held)


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
    for image, seed in zip(images, (2, 1), strict=True):
        assert tuple(image.shape) == (1, 12, 11, 10)
        assert image.dtype == torch.float32
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
    for first, second in pairs:
        assert len(first) == len(second) <= batch_size
        assert all(map(torch.equal, first, second))


def test_batches_of_scans_in_memory_are_not_copied():
    """Of a large grid a step looks at a window alone."""
    scans = load_scans(FIFTEEN, RAW, 1.0)
    (images,) = scans.batches([torch.tensor([3, 1])])
    assert [i.data_ptr() for i in images] == [scans.images[n].data_ptr() for n in (3, 1)]


@pytest.mark.parametrize(("budget_gb", "in_memory"), [(15 * 5280e-9, True), (79000e-9, False)])
def test_the_budget_is_what_float32_voxels_take(budget_gb, in_memory):
    """12 x 11 x 10 voxels of 4 bytes are 5280 bytes a scan."""
    images = load_scans(FIFTEEN, PERCENTILE, budget_gb).images
    assert isinstance(images, torch.Tensor) is in_memory


@pytest.mark.parametrize("budget_gb", [1.0, 0.0], ids=["in memory", "read when needed"])
def test_parts_of_the_scans_are_theirs_and_take_no_memory_of_their_own(budget_gb):
    """Regression: they were copied, so that a tuning worker held all its scans twice."""
    scans = load_scans(FIFTEEN, PERCENTILE, budget_gb)
    train, val = scans.select(["7", "2", "11"]), scans.select(["14", "0"])
    part = train.select(["11", "7"])
    for some, numbers in ((train, [7, 2, 11]), (val, [14, 0]), (part, [11, 7])):
        assert some.ids == tuple(map(str, numbers))
        assert torch.equal(some.points, scans.points[numbers])
        order = torch.arange(len(numbers)).flip(0).split(2)
        for batch, images in zip(order, some.batches(order), strict=True):
            for number, image in zip(batch.tolist(), images, strict=True):
                wanted = normalise(grey_image(numbers[number]), PERCENTILE)
                np.testing.assert_array_equal(image[0], wanted)
        if budget_gb:
            assert some.images.untyped_storage().data_ptr() == (
                scans.images.untyped_storage().data_ptr()
            )
            assert scans.images.nbytes == 15 * 5280


CPU = torch.device("cpu")


def test_images_in_memory_are_averaged_once_for_the_coarse_stage():
    scans = load_scans(FIFTEEN, PERCENTILE, 1.0).select(["7", "2", "11"])
    batch = torch.tensor([2, 0])
    (images,) = scans.batches([batch])
    pooled = scans.pooled_by(2).pooled_batch(batch, CPU)
    assert [one.shape for one in pooled] == [(1, 6, 6, 5)] * 2
    for one, image in zip(pooled, images, strict=True):
        assert torch.equal(one, pool_volume(image, 2))
    meta = torch.device("meta")  # as a GPU that has no room for the scans
    assert {one.device for one in scans.pooled_by(2).pooled_batch(batch, meta)} == {meta}
    assert (
        scans.pooled_by(1).pooled_batch(batch, CPU) is None
    )  # one stage sees the scans as they are
    read_when_needed = load_scans(FIFTEEN, PERCENTILE, 0.0).pooled_by(2)
    assert read_when_needed.pooled_batch(batch, CPU) is None


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


def test_an_empty_share_of_a_batch_has_no_images():
    for budget in (1.0, 0.0):
        batches = load_scans(FIFTEEN, RAW, budget).batches([torch.arange(2), torch.arange(0)])
        assert [len(images) for images in batches] == [2, 0]


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


def test_a_missing_object_is_nan_among_the_tensors():
    scans = load_scans([lacking("a")], RAW, 1.0)
    assert scans.object_names == ("upper", "lower")
    assert scans.select(["a"]).object_names == ("upper", "lower")
    assert scans.points[0].isnan().tolist() == [[False] * 3, [True] * 3]


def lacking(scan_id: str) -> SimpleNamespace:
    """Return a stand-in for a cached file whose second object is missing."""
    one = example(scan_id, (24, 22, 20))
    one.points_voxels[1] = np.nan
    one.object_names = ("upper", "lower")
    return one


def test_masks_are_channels_of_their_own_and_nan_where_there_are_points_only():
    mask = np.zeros((12, 11, 10), np.uint8)
    mask[2:4, 3, 3], mask[7, 7, 7] = 1, 2
    files = []
    for name, own in (("masked", mask), ("clicked", None)):
        file = example(name, (24, 22, 20))
        held = replace(file.read(), mask=own)
        about = vars(file) | {"has_mask": own is not None, "read": lambda held=held: held}
        files.append(SimpleNamespace(**about))
    objects = {"jaw": [1], "all": None}
    for budget in (4.0, 0.0):
        scans = load_scans(files, RAW, budget, objects)
        assert scans.has_mask == (True, False)
        (images,) = scans.batches([torch.tensor([1, 0])])
        assert [tuple(image.shape) for image in images] == [(3, 12, 11, 10)] * 2
        assert images[0][1:].isnan().all()
        np.testing.assert_array_equal(images[1][1], mask == 1)
        np.testing.assert_array_equal(images[1][2], mask > 0)
        assert scans.select(["clicked"]).has_mask == (False,)
        clicked = load_scans(files[1:], RAW, budget, objects)
        assert clicked.has_mask == ()  # no memory for masks that nobody has
        (images,) = clicked.batches([torch.tensor([0])])
        assert tuple(images[0].shape) == (1, 12, 11, 10)


def test_a_label_that_nobody_drew_is_an_unknown_mask():
    """Regression: the network was taught that there is no such object, although it may be seen."""
    mask = np.zeros((12, 11, 10), np.uint8)
    mask[2:4, 3, 3] = 1
    file = example("one", (24, 22, 20))
    points = np.array([[2.5, 3.0, 3.0], [np.nan] * 3])
    about = {"has_mask": True, "points_voxels": points, "object_names": ("jaw", "eye")}
    held = replace(file.read(), mask=mask, points_voxels=points, object_names=("jaw", "eye"))
    one = SimpleNamespace(**vars(file) | about | {"read": lambda: held})
    scans = load_scans([one], RAW, 4.0, {"jaw": [1], "eye": [2]})
    ((image,),) = scans.batches([torch.tensor([0])])
    np.testing.assert_array_equal(image[1], mask == 1)
    assert image[2].isnan().all()
    assert scans.count_masks(torch.tensor([0])) == 1


def test_a_position_counts_what_its_label_weighs_and_others_one():
    files = [example(name, (24, 22, 20)) for name in "ab"]
    assert load_scans(files, PERCENTILE, 4.0).weights is None
    files[0].object_names = ("jaw", "otolith")
    files[1].label_weights = (0.5, 1.0)
    scans = load_scans(files, PERCENTILE, 4.0)
    assert scans.weights is not None
    assert scans.weights.tolist() == [[1.0, 1.0], [0.5, 1.0]]
    selected = scans.select(["b"]).weights
    assert selected is not None
    assert selected.tolist() == [[0.5, 1.0]]
