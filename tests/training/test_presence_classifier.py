"""Whether a place shows the object: what the second network learns, and how it is asked."""

from __future__ import annotations

import math
import warnings
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jawloc.geometry import Grid
from jawloc.training import presence_training as module
from jawloc.training.augmentation import AugmentationConfig
from jawloc.training.intensity import normalise
from jawloc.training.presence_classifier import (
    INTENSITY,
    SIDE,
    PresenceClassifier,
    crop_around,
    pool_image,
    presence_logits,
    sample_patches,
)
from jawloc.training.presence_training import (
    PresenceClassifierConfig,
    train_presence_classifier,
    warn_without_extents,
)

SHAPE = (52, 24, 24)
JAW = {"jaw": None}
STILL = AugmentationConfig(flip_axes=("y", "x"), rotation_degrees_zyx=(180.0, 0.0, 0.0))


def hooks(seed: int, spacing=(0.1, 0.1, 0.1), label: int = 1):
    """A noisy scan with a bright bow in it that is labelled, and two bright balls that aren't."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(SHAPE)
    at = rng.uniform([20, 9, 9], [32, 15, 15])
    flat = np.hypot(y - at[1], x - at[2])
    bow = (abs(z - at[0]) < 1.2) & (abs(flat - 3.5) < 1.0)
    image = rng.normal(200, 20, SHAPE) + 600 * bow
    for ball in ((at[0] - 6, at[1], at[2]), (at[0] + 6, at[1], at[2])):
        image += 600 * (((z - ball[0]) ** 2 + (y - ball[1]) ** 2 + (x - ball[2]) ** 2) < 5)
    mask = (label * bow).astype(np.uint8)
    point = np.argwhere(bow).mean(axis=0)
    example = SimpleNamespace(image=image.clip(0).astype(np.uint16), mask=mask)
    return SimpleNamespace(
        read=lambda: example,
        points_voxels=point[None],
        grid=Grid(SHAPE, spacing),
        source_grid=Grid((104, 48, 48), spacing),
        bow=bow,
        object_names=("jaw",),
        has_mask=True,
    )


def without(file) -> np.ndarray:
    image = file.read().image.copy()
    image[file.bow] = 200
    return image


def ask(network, image, points, flipped_axes):
    values = torch.from_numpy(normalise(image, INTENSITY))
    return presence_logits(network, values, points, flipped_axes)


def learn(files, steps=120, objects=JAW, **changes):
    options = {"seed": 0, "device": torch.device("cpu")} | changes
    return train_presence_classifier(
        files, objects, STILL, PresenceClassifierConfig(steps), **options
    )


@pytest.fixture(scope="module")
def network():
    return learn([hooks(seed) for seed in range(8)])


@pytest.mark.slow
def test_new_scans_without_the_object_are_told_from_those_with_it(network):
    new = [hooks(seed) for seed in range(100, 120)]
    asked = [(f, f.points_voxels + 0.7) for f in new]  # about as far off as what is found
    there = [ask(network, f.read().image, p, ("y", "x"))[0] for f, p in asked]
    gone = [ask(network, without(f), p, ("y", "x"))[0] for f, p in asked]
    assert np.mean(np.array(there) > 0) >= 0.95
    assert np.mean(np.array(gone) < 0) >= 0.95


@pytest.mark.slow
def test_another_place_does_not_show_it_either(network):
    file = hooks(100)
    for place in ([4.0, 12.0, 12.0], [48.0, 12.0, 12.0]):
        assert ask(network, file.read().image, np.array([place]), ())[0] < 0


def test_the_same_seed_learns_the_same_whatever_was_drawn_before():
    files = [hooks(seed) for seed in range(3)]
    first = learn(files, steps=2)
    torch.rand(7)
    state = torch.get_rng_state()
    second = learn(files, steps=2)
    assert torch.equal(torch.get_rng_state(), state)  # training's own draws go on as they were
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    other = learn(files, steps=2, seed=1)
    assert not torch.equal(other.head.weight, first.head.weight)


def test_without_steps_or_labelled_voxels_nothing_is_learned():
    assert learn([hooks(0)], steps=0) is None
    empty = hooks(0)
    empty.read().mask[:] = 0
    assert learn([empty]) is None


def test_an_object_that_some_scans_lack_is_learned_from_the_others():
    files = [hooks(0, label=1), hooks(1, label=2)]
    for number, file in enumerate(files):
        points = np.full((2, 3), np.nan)
        points[number] = file.points_voxels[0]
        file.points_voxels = points
    network = learn(files, steps=3, objects={"one": [1], "two": [2]})
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
    logits = ask(network, files[0].read().image, np.full((2, 3), 9.0), ())
    assert logits.shape == (2,)
    assert np.isfinite(logits).all()


def test_the_neighbourhood_is_a_cube_in_space_2_and_a_half_times_as_long_as_the_object():
    thick = [hooks(seed, spacing=(0.2, 0.1, 0.1)) for seed in range(3)]
    pitch = learn(thick, steps=1).pitch_voxels[0] * torch.tensor([0.2, 0.1, 0.1])
    assert pitch.numpy() == pytest.approx([float(pitch[0])] * 3, rel=1e-5)
    lengths = [(np.ptp(np.argwhere(f.bow), axis=0) + 1) * (0.2, 0.1, 0.1) for f in thick]
    edge = 2.5 * np.median(np.max(lengths, axis=1))
    assert float(pitch[0]) * SIDE == pytest.approx(edge, rel=1e-5)
    # the unit that sizes are given in is no matter, nor that some scans don't say any
    thick[0].grid = Grid(SHAPE, (200.0, 100.0, 100.0))
    assert learn(thick, steps=1).pitch_voxels.numpy() == pytest.approx(
        (pitch / torch.tensor([0.2, 0.1, 0.1]))[None].numpy(), rel=1e-5
    )


@pytest.mark.parametrize("pitch", [(0.7, 0.7, 0.7), (3.6, 2.4, 2.5)])
@pytest.mark.parametrize("point", [(40.0, 30.0, 30.0), (1.0, 58.0, 2.5), (79.4, -0.4, 59.4)])
def test_what_is_cut_out_for_a_point_is_what_the_whole_scan_gives(pitch, point):
    """Locating pools a small part only; learning pools whole scans."""
    network = PresenceClassifier(1)
    network.pitch_voxels.copy_(torch.tensor([pitch]))
    image = torch.rand(80, 60, 60, generator=torch.Generator().manual_seed(0))
    place, step, pool = torch.tensor(point), torch.tensor(pitch), network.pool_zyx
    crop, inside = crop_around(image, place, step, pool)
    few = sample_patches(pool_image(crop, pool)[None, None], inside[None], step, pool)
    every = sample_patches(pool_image(image, pool)[None, None], place[None], step, pool)
    assert torch.allclose(few, every, atol=1e-5)


def test_a_neighbourhoods_middle_is_the_point():
    image = torch.zeros(40, 40, 40)
    image[20, 22, 18] = 1.0
    one, point = (1, 1, 1), torch.tensor([[20.5, 22.5, 18.5]])
    patch = sample_patches(image[None, None], point, torch.ones(3), one)[0, 0]
    # the samples beside the middle lie half a step from it
    assert float(patch[SIDE // 2 - 1, SIDE // 2 - 1, SIDE // 2 - 1]) == pytest.approx(1, abs=1e-4)
    assert float(patch.sum()) == pytest.approx(1, abs=1e-4)


# --- memory --------------------------------------------------------------------------------------


def one_scan_bytes(file) -> int:
    """An image of 4 bytes a voxel, and a byte for each voxel of the box round its object."""
    box = np.ptp(np.argwhere(file.bow), axis=0) + 1
    return 4 * int(np.prod(SHAPE)) + int(np.prod(box))


@pytest.fixture
def held(monkeypatch):
    """Note what each network learns from, and that masks of the scans are gone by then."""
    seen, load = [], module._load

    def noted(*arguments):
        scans = load(*arguments)
        seen.append(scans)
        return scans

    monkeypatch.setattr(module, "_load", noted)
    return seen


@pytest.mark.parametrize(("fit", "expected"), [(0.0, 1), (1.5, 1), (3.0, 3), (7.9, 7), (8.0, 8)])
def test_what_is_learned_from_stays_within_the_memory_budget(held, fit, expected):
    """Regression: up to 128 scans and their masks were held, whatever the budget said."""
    files = [hooks(seed) for seed in range(8)]
    budget = fit * max(map(one_scan_bytes, files))
    assert learn(files, steps=1, memory_budget_gb=budget / 1e9) is not None
    (scans,) = held
    regions = [region for own in scans.regions for region in own]
    taken = scans.images.nbytes + sum(region.inside.nbytes for region in regions)
    assert len(scans.images) == len(scans.regions) == len(scans.points) == expected
    assert taken <= max(budget, max(map(one_scan_bytes, files)))


def test_masks_are_not_held_while_others_are_read(monkeypatch):
    """Regression: those of all scans were in memory at once, beside the images."""
    live, whole, counts = [], module._masks, []

    def watched(*args, **options):
        counts.append(sum(reference() is not None for reference in live))
        masks = whole(*args, **options)
        live.extend(map(weakref.ref, masks))
        return masks

    monkeypatch.setattr(module, "_masks", watched)
    assert learn([hooks(seed) for seed in range(5)], steps=1) is not None
    assert len(counts) >= 5
    assert max(counts) <= 1


def test_an_ample_budget_changes_nothing(held):
    files = [hooks(seed) for seed in range(5)]
    empty = hooks(9)
    empty.read().mask[:] = 0
    files.insert(2, empty)
    first, second = (learn(files, steps=3, memory_budget_gb=gb) for gb in (math.inf, 0.01))
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    # as it was before there was a budget
    assert float(first.head.weight.detach().double().sum()) == pytest.approx(0.51919753, rel=1e-5)
    assert [len(scans.images) for scans in held] == [5, 5]  # what shows nothing teaches nothing


def test_each_object_is_shown_by_a_scan_that_fits(held):
    files = [hooks(seed, label=2 if seed == 5 else 1) for seed in range(6)]
    for file in files:
        points = np.full((2, 3), np.nan)
        points[int(file.read().mask.max()) - 1] = file.points_voxels[0]
        file.points_voxels = points
    budget = 3 * max(map(one_scan_bytes, files)) / 1e9
    options = {"steps": 1, "objects": {"one": [1], "two": [2]}, "memory_budget_gb": budget}
    for seed in range(4):
        learn(files, seed=seed, **options)
    for scans in held:
        assert len(scans.images) == 3
        assert {k for _, k in scans.shown()} == {0, 1}


def clicked(seed: int, spacing=(0.2, 0.2, 0.2)):
    """The same scan with its centre clicked instead of a mask."""
    file = hooks(seed, spacing)
    names = ("points_voxels", "grid", "source_grid", "object_names")
    about = {name: getattr(file, name) for name in names}
    example = SimpleNamespace(image=file.read().image, mask=None, **about)
    return SimpleNamespace(read=lambda: example, bow=file.bow, has_mask=False, **about)


def of_two(file, labelled: int):
    """A scan of two objects, of which one is labelled, here or elsewhere."""
    points = np.full((2, 3), np.nan)
    points[labelled] = file.points_voxels[0]
    file.points_voxels = file.read().points_voxels = points
    file.object_names = ("jaw", "eye")
    return file


def test_an_object_whose_size_no_scan_tells_is_not_judged():
    """Regression: its output, which nothing had taught, was a score like any other."""
    files = [of_two(hooks(seed), 0) for seed in range(3)] + [of_two(clicked(3), 1)]
    two = {"jaw": [1], "eye": [2]}
    network, alone = learn(files, 1, two), learn([hooks(0)], 1)
    assert network.pitch_voxels[1].tolist() == [0, 0, 0]
    assert network.pool_zyx == alone.pool_zyx  # not that of the object without a size
    points = np.repeat(np.array([[26.0, 12, 12]]), 2, axis=0)
    jaw, eye = ask(network, files[0].read().image, points, ())
    assert np.isfinite(jaw)
    assert np.isnan(eye)
    with pytest.warns(UserWarning, match="has a mask of eye, so the presence classifier can't"):
        warn_without_extents(files, PresenceClassifierConfig())


def test_of_many_scans_those_that_show_an_object_are_drawn(monkeypatch):
    """Regression: the draw could miss all of the few with masks among many that are clicked."""
    monkeypatch.setattr(module, "MOST_SCANS", 4)
    files = [of_two(hooks(seed), int(seed == 7)) for seed in range(8)]
    files += [of_two(clicked(seed), 0) for seed in range(30)]
    taught = {"one": [1], "two": [1]}
    for seed in range(3):
        network = learn(files, 1, taught, seed=seed)
        assert (network.pitch_voxels > 0).all()


def pitch(files, **radius):
    config = PresenceClassifierConfig(1, **radius)
    options = {"seed": 0, "device": torch.device("cpu")}
    network = train_presence_classifier(files, JAW, STILL, config, **options)
    return None if network is None else network.pitch_voxels[0].tolist()


def test_a_ball_stands_in_for_the_mask_of_a_scan_with_a_point():
    """Its diameter is the object's extent: 0.8 mm are 4 voxels of 0.2 mm on either side."""
    files = [clicked(seed) for seed in range(2)]
    for file in files:  # so that the ball's extent can be counted
        file.points_voxels[:] = np.rint(file.points_voxels)
    assert pitch(files, object_radius_mm=0.8) == pytest.approx([module.EDGE * 9 / SIDE] * 3)
    assert pitch(files) is None
    assert pitch(files, object_radius_voxels=8) is None  # the spacing is known: mm are meant
    unknown = [clicked(seed, None) for seed in range(2)]
    for file in unknown:
        file.points_voxels[:] = np.rint(file.points_voxels)
    # the full-size scan is twice as fine
    expected = module.EDGE * 9 / SIDE, module.EDGE * 9 / SIDE, module.EDGE * 9 / SIDE
    assert pitch(unknown, object_radius_voxels=8) == pytest.approx(expected)
    assert pitch(unknown, object_radius_mm=0.8) is None


def test_without_a_radius_scans_with_points_are_left_out():
    files = [hooks(seed, (0.2, 0.2, 0.2)) for seed in range(2)]
    alone, mixed = pitch(files), pitch([*files, clicked(5)])
    assert mixed == pytest.approx(alone)


@pytest.mark.slow
def test_from_points_and_a_radius_it_learns_what_shows_the_object():
    files = [clicked(seed) for seed in range(8)]
    config = PresenceClassifierConfig(120, object_radius_mm=0.9)
    options = {"seed": 0, "device": torch.device("cpu")}
    network = train_presence_classifier(files, JAW, STILL, config, **options)
    new = [hooks(seed, (0.2, 0.2, 0.2)) for seed in range(100, 120)]
    asked = [(f, f.points_voxels + 0.7) for f in new]
    there = [ask(network, f.read().image, p, ("y", "x"))[0] for f, p in asked]
    gone = [ask(network, without(f), p, ("y", "x"))[0] for f, p in asked]
    assert np.mean(np.array(there) > 0) >= 0.9
    assert np.mean(np.array(gone) < 0) >= 0.9


@pytest.mark.parametrize(
    ("spacing", "radius", "said"),
    [
        ((0.2, 0.2, 0.2), {}, "presence_classifier.object_radius_mm"),
        (None, {}, "presence_classifier.object_radius_voxels"),
        (None, {"object_radius_mm": 1.0}, "presence_classifier.object_radius_voxels"),
        ((0.2, 0.2, 0.2), {"object_radius_mm": 1.0}, None),
        ((0.2, 0.2, 0.2), {"steps": 0}, None),
    ],
)
def test_a_training_without_any_extent_is_warned_of(spacing, radius, said):
    files, config = [clicked(0, spacing)], PresenceClassifierConfig(**radius)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_without_extents(files, config)
        warn_without_extents([*files, hooks(1)], config)
    assert [said in str(one.message) for one in caught] == ([True] if said else [])
