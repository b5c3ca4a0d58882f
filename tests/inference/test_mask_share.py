"""The share of the mask's centroid is the one with the least error on held-out scans."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jawloc.geometry import Grid
from jawloc.inference.locator import load_locator, save_locator
from jawloc.inference.mask_share import best_share, choose_mask_shares, shares_of
from jawloc.inference.predict import predict_stages
from jawloc.training.stages import NetworkConfig
from tests.inference.test_locator import OBJECTS, SIZE, make_locator

CONFIG = NetworkConfig(coarse=1, channels=(4, 8), stride=2, mask_supervision=True)


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


def test_without_a_scan_that_shows_both_the_position_is_the_heatmaps():
    nan = np.full((2, 3), np.nan)
    assert best_share(nan, np.zeros((2, 3)), np.zeros((2, 3))) == 0
    assert best_share(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3))) == 0


def held_out(seed, point, masked=True):
    image = np.random.default_rng(seed).integers(0, 999, SIZE).astype(np.uint16)
    grid = Grid(SIZE, (0.2, 0.1, 0.1))
    own = {"points_voxels": np.array([point, point]), "grid": grid, "source_grid": grid}
    return SimpleNamespace(**own, has_mask=masked, read=lambda: SimpleNamespace(image=image))


def test_the_shares_of_a_network_are_chosen_kept_in_its_file_and_used(tmp_path):
    locator = make_locator(CONFIG)
    network = locator.networks[0]
    with torch.no_grad():
        network.head.bias[2:] = 1  # masks that are not empty
    assert shares_of(locator) == dict.fromkeys(OBJECTS, 0.0)
    # the masks' centroid lies in the middle of the grid, and so do the objects
    files = [held_out(seed, (11.5, 5.5, 5.5)) for seed in range(6)]
    chosen = choose_mask_shares(locator, files, files)
    shares = shares_of(chosen)
    assert all(0.3 < share <= 1 for share in shares.values())
    save_locator(chosen, tmp_path / "m.pth")
    loaded = load_locator(tmp_path / "m.pth")
    assert shares_of(loaded) == shares
    image = torch.randn(1, 1, *SIZE)
    (last,) = predict_stages(loaded.networks[0], CONFIG.stages(), image, (1.5,))
    between = torch.tensor([*shares.values()])[:, None]
    expected = (1 - between) * last.heatmap_points() + between * last.mask_points()
    torch.testing.assert_close(last.decode().points, expected)


def test_a_network_that_saw_no_mask_goes_by_its_heatmap_alone():
    locator, files = make_locator(CONFIG), [held_out(0, (11.5, 5.5, 5.5), masked=False)]
    assert choose_mask_shares(locator, files, files) is locator
    assert shares_of(locator) == dict.fromkeys(OBJECTS, 0.0)


def test_without_mask_supervision_nothing_changes():
    locator = make_locator()
    assert choose_mask_shares(locator, [], []) is locator
    assert shares_of(locator) == {}
