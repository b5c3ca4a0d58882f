"""The share of the mask's centroid is the one with the least error on held-out scans."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jawloc.geometry import Grid
from jawloc.inference.locator import load_locator, save_locator
from jawloc.inference.mask_share import best_share, choose_mask_shares, shares_of
from jawloc.inference.out_of_distribution import LEAST_VOXELS
from jawloc.inference.predict import predict_stages
from jawloc.training.stages import NetworkConfig
from tests.inference.test_locator import OBJECTS, SIZE, make_locator

CONFIG = NetworkConfig(coarse=1, channels=(4, 8), stride=2, mask_supervision=True)
TWO_STAGES = replace(CONFIG, coarse=2, window=(24, 16, 16))


def points(scans, seed, deviation):
    return np.random.default_rng(seed).normal(0, deviation, (scans, 3))


@pytest.mark.parametrize(
    ("heatmap", "mask", "share"), [(1.0, 1.0, 0.5), (1.0, 0.1, 1.0), (0.1, 1.0, 0.0), (1, 2, 0.2)]
)
def test_with_many_scans_errors_are_weighed_by_their_inverse_variances(heatmap, mask, share):
    truth = points(4000, 0, 30)
    found = truth + points(4000, 1, heatmap), truth + points(4000, 2, mask)
    assert best_share(*found, truth) == pytest.approx(share, abs=0.03)


def test_one_scan_decides_little():
    truth = np.zeros((1, 3))
    assert best_share(truth, truth + 1, truth) == 0
    assert best_share(truth + 1, truth, truth) == pytest.approx(1 / 6)
    assert best_share(truth + 1, truth, truth, 0.4) == pytest.approx((1 + 5 * 0.4) / 6)
    assert best_share(truth, truth + 1, truth, 0.4) == pytest.approx(5 * 0.4 / 6)


def test_without_a_scan_that_shows_both_what_was_known_stays():
    nan = np.full((2, 3), np.nan)
    assert best_share(nan, np.zeros((2, 3)), np.zeros((2, 3))) == 0
    assert best_share(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3))) == 0
    assert best_share(nan, np.zeros((2, 3)), np.zeros((2, 3)), 0.4) == 0.4


def held_out(seed, point, masked=True):
    image = np.random.default_rng(seed).integers(0, 999, SIZE).astype(np.uint16)
    grid = Grid(SIZE, (0.2, 0.1, 0.1))
    own = {"points_voxels": np.array([point, point]), "grid": grid, "source_grid": grid}
    return SimpleNamespace(**own, has_mask=masked, read=lambda: SimpleNamespace(image=image))


@pytest.mark.parametrize(
    ("config", "middle"), [(CONFIG, (11.5, 5.5, 5.5)), (TWO_STAGES, (11.5, 7.5, 7.5))]
)
def test_the_shares_of_a_network_are_chosen_kept_in_its_file_and_used(tmp_path, config, middle):
    locator = make_locator(config)
    network = locator.networks[0]
    with torch.no_grad():
        last = network if config is CONFIG else network.parts[-1]
        last.head.bias[2:] = 1  # masks that are not empty
    assert shares_of(locator) == dict.fromkeys(OBJECTS, 0.0)
    # the masks' centroid lies in the middle of the grid, or window, and so do the objects
    files = [held_out(seed, middle) for seed in range(6)]
    chosen = choose_mask_shares(locator, files, files)
    shares = shares_of(chosen)
    assert all(0.3 < share <= 1 for share in shares.values())
    save_locator(chosen, tmp_path / "m.pth")
    loaded = load_locator(tmp_path / "m.pth")
    assert shares_of(loaded) == shares
    image = torch.randn(1, 1, *SIZE)
    stages = config.stages()
    *_, last = predict_stages(loaded.networks[0], stages, image, (1.5,) * len(stages))
    between = torch.tensor([*shares.values()])[:, None]
    expected = (1 - between) * last.heatmap_points() + between * last.mask_points()
    torch.testing.assert_close(last.decode().points, expected)


@pytest.mark.parametrize("scans", [0, 1])
def test_where_few_scans_are_held_out_those_that_trained_decide(scans):
    """Regression: with one validation scan, the lab's number, masks hardly counted."""
    locator = make_locator(CONFIG)
    with torch.no_grad():
        locator.networks[0].head.bias[2:] = 1
    files = [held_out(seed, (11.5, 5.5, 5.5)) for seed in range(60)]
    shares = shares_of(choose_mask_shares(locator, files[:scans], files[scans:]))
    few = shares_of(choose_mask_shares(locator, files[:scans], [held_out(9, (11.5, 5.5, 5.5))]))
    assert all(shares[name] > few[name] + 0.3 for name in OBJECTS)
    assert all(0.6 < share <= 1 for share in shares.values())


@pytest.mark.parametrize("config", [CONFIG, TWO_STAGES], ids=["one stage", "two stages"])
@pytest.mark.parametrize("masked", [False, True], ids=["points alone", "one object's masks"])
def test_of_an_object_that_no_mask_showed_none_is_predicted(config, masked):
    """Regression: the volume of a mask that nobody taught counted for the status."""
    locator = make_locator(config)
    part = locator.networks[0].parts[-1] if config is TWO_STAGES else locator.networks[0]
    with torch.no_grad():
        part.head.bias[2:] = 1
    file = held_out(0, (11.5, 5.5, 5.5), masked=masked)
    file.points_voxels[1] = np.nan
    chosen = choose_mask_shares(locator, [], [file])
    assert shares_of(chosen)["lower jaw"] == 0
    seen = []
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 999, SIZE).astype(np.uint16)
        seen.append([scores["volume"] for scores in chosen.predict(image).ood_scores])
    first, second = np.transpose(seen)
    assert set(second) == {math.log(LEAST_VOXELS)}  # the same for every scan: it says nothing
    assert bool(first.min() > 0) is masked


def test_networks_that_saw_masks_and_points_go_together(tmp_path):
    """Regression: folds that differed in this made a model file that could not be read."""
    both = []
    for masked in (True, False):
        files = [held_out(seed, (11.5, 5.5, 5.5), masked=masked) for seed in range(6)]
        locator = choose_mask_shares(make_locator(CONFIG), files, files)
        both += locator.networks
    together = replace(locator, networks=tuple(both), sigma_voxels=locator.sigma_voxels * 2)
    save_locator(together, tmp_path / "m.pth")
    assert shares_of(load_locator(tmp_path / "m.pth")) == shares_of(together)


def test_scans_that_trained_no_mask_do_not_say_how_much_masks_count():
    locator, far = make_locator(CONFIG), (3.0, 1.0, 2.0)
    with torch.no_grad():
        locator.networks[0].head.bias[2:] = 1
    files = [held_out(seed, (11.5, 5.5, 5.5)) for seed in range(6)]
    points = [held_out(seed, far, masked=False) for seed in range(6, 30)]
    with_points = shares_of(choose_mask_shares(locator, [], [*files, *points]))
    assert with_points == shares_of(choose_mask_shares(locator, [], files))


def test_scans_with_and_without_a_voxel_size_count_alike():
    """Regression: mm and voxels were added up, so that those without a size decided alone."""
    locator = make_locator(CONFIG)
    with torch.no_grad():
        locator.networks[0].head.bias[2:] = 1
    files = [held_out(seed, (11.5, 5.5, 5.5)) for seed in range(6)]
    for file in files[:2]:
        file.grid = file.source_grid = Grid(SIZE)
    mixed = shares_of(choose_mask_shares(locator, files[:4], files[4:]))
    for file in files:
        file.grid = file.source_grid = Grid(SIZE)
    assert all(0 < share < 1 for share in mixed.values())
    assert mixed == shares_of(choose_mask_shares(locator, files[:4], files[4:]))


def test_without_mask_supervision_nothing_changes():
    locator = make_locator()
    assert choose_mask_shares(locator, [], []) is locator
    assert shares_of(locator) == {}
