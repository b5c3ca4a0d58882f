"""Decoding: the inverse of rendering, sub-voxel, also at borders, and steady against outliers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from jawloc.heatmaps.decode import decode
from jawloc.heatmaps.target import render

SHAPES = [(24, 16, 16), (25, 17, 9), (64, 12, 11)]
SIGMAS = [1.0, 1.5, 2.0, 3.3, 5.0, 8.0, 20.0]
CLAIMED_VOXELS = 0.02


def gaussian_logits(
    points: torch.Tensor, shape: tuple[int, int, int], sigma: float
) -> torch.Tensor:
    """Return the logarithm of rendered targets without the underflow of taking one."""
    z, y, x = (
        -0.5 * ((torch.arange(n) - points[..., a, None]) / sigma) ** 2 for a, n in enumerate(shape)
    )
    return z[..., :, None, None] + y[..., None, :, None] + x[..., None, None, :]


def points_anywhere(shape: tuple[int, int, int], count: int) -> torch.Tensor:
    """Return points (count, 1, 3) anywhere between the volume's faces."""
    share = torch.rand(count, 1, 3, generator=torch.Generator().manual_seed(0))
    return share * torch.tensor(shape) - 0.5


def points_at_borders(shape: tuple[int, int, int]) -> torch.Tensor:
    """Return points on and near every face, edge and corner, and centres of border voxels."""
    places = [(-0.5, 0.0, 0.3, n / 2, n - 1.4, n - 1.0, n - 0.5) for n in shape]
    points = torch.tensor(list(itertools.product(*places)), dtype=torch.float32)[:, None]
    return points[::5]


def largest_error(points: torch.Tensor, shape: tuple[int, int, int], sigma: float) -> float:
    errors = [
        (decode(gaussian_logits(part, shape, sigma), sigma).points - part).norm(dim=-1).max().item()
        for part in points.split(16)
    ]
    return max(errors)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_rendered_target_decodes_to_its_point(shape, sigma):
    """An integer argmax would be wrong by half a voxel, a plain mean by voxels near a border."""
    assert largest_error(points_anywhere(shape, 40), shape, sigma) < CLAIMED_VOXELS


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_a_rendered_target_decodes_to_its_point_at_borders_and_corners(shape, sigma):
    assert largest_error(points_at_borders(shape), shape, sigma) < CLAIMED_VOXELS


def test_a_sigma_of_half_a_voxel_decodes_too():
    """The default network's heatmap is coarser than its input, so sigma gets this small there."""
    points = torch.cat([points_anywhere(SHAPES[0], 40), points_at_borders(SHAPES[0])])
    assert largest_error(points, SHAPES[0], 0.5) < CLAIMED_VOXELS


@pytest.mark.parametrize("sigma", [0.3, 0.1, 0.01, 1e-4])
def test_below_that_the_point_stays_within_its_voxel(sigma):
    points = torch.cat([points_anywhere(SHAPES[0], 40), points_at_borders(SHAPES[0])])
    found = decode(gaussian_logits(points, SHAPES[0], sigma), sigma).points
    assert (found - points).abs().max() <= 0.5 + 1e-5


def test_a_map_rendered_by_target_decodes_to_its_point():
    """As above but from render() itself, whose float32 zeros have the least possible logits."""
    points = torch.tensor([[[5.3, 7.8, 2.25]], [[0.0, 15.0, 0.0]]])
    logits = render(points, SHAPES[0], 2.0).clamp_min(1e-38).log()
    torch.testing.assert_close(decode(logits, 2.0).points, points, atol=CLAIMED_VOXELS, rtol=0)


def test_several_objects_and_scans_keep_their_places():
    points = torch.tensor(
        [[[3.2, 4.5, 5.5], [20.0, 12.2, 1.0]], [[0.0, 0.0, 0.0], [11.5, 8.0, 15.0]]]
    )
    found = decode(gaussian_logits(points, SHAPES[0], 1.5), 1.5)
    assert found.spread.shape == (2, 2)
    torch.testing.assert_close(found.points, points, atol=CLAIMED_VOXELS, rtol=0)


def test_adding_a_constant_to_the_logits_changes_nothing():
    point = torch.tensor([[[12.3, 4.5, 8.8]]])
    logits = gaussian_logits(point, SHAPES[0], 2.0)
    torch.testing.assert_close(
        decode(logits + 300, 2.0).points, decode(logits, 2.0).points, atol=1e-3, rtol=0
    )


def test_a_stray_blob_far_away_does_not_move_the_point():
    """It moves the plain mean by a voxel: the reason for the window."""
    shape, point, far = (48, 16, 16), [10.4, 8.2, 7.7], [40.0, 3.0, 12.0]
    both = render(torch.tensor([[point, far]]), shape, 2.0)[0]
    mixed = 0.95 * both[0] + 0.05 * both[1]
    plain_mean_z = (mixed.sum((1, 2)) * torch.arange(48)).sum()
    found = decode(mixed.clamp_min(1e-38).log()[None, None], 2.0).points[0, 0]
    assert plain_mean_z - point[0] > 1
    torch.testing.assert_close(found, torch.tensor(point), atol=CLAIMED_VOXELS, rtol=0)


def test_one_outlying_voxel_does_not_win_over_a_blob():
    logits = gaussian_logits(torch.tensor([[[8.0, 8.0, 8.0]]]), (24, 16, 16), 2.0)
    logits[0, 0, 20, 3, 3] = 0.5  # above the blob's peak of 0
    found = decode(logits, 2.0).points[0, 0]
    torch.testing.assert_close(found, torch.tensor([8.0, 8.0, 8.0]), atol=0.02, rtol=0)


@pytest.mark.parametrize("shape", [(24, 16, 16), (9, 8, 7), (2, 3, 1), (1, 1, 1)])
@pytest.mark.parametrize("sigma", [0.5, 2.0, 30.0])
def test_flat_logits_give_a_finite_point_inside(shape, sigma):
    """What an untrained network may predict; heatmaps of one or two voxels a side included."""
    found = decode(torch.zeros(1, 1, *shape), sigma)
    assert torch.isfinite(found.spread).all()
    assert ((found.points >= -0.5) & (found.points <= torch.tensor(shape) - 0.5)).all()


@pytest.mark.parametrize("sigma", [0.5, 2.0, 8.0])
def test_an_overconfident_map_at_a_border_gives_a_point_inside(sigma):
    """All mass in a corner's voxel would fit a Gaussian centred beyond it."""
    logits = torch.full((1, 1, 24, 16, 16), -1e4)
    logits[..., 0, 0, 15] = 1e4
    found = decode(logits, sigma).points[0, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 15.0]), atol=0.5, rtol=0)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0])
def test_the_spread_of_a_target_away_from_borders_is_sigma(sigma):
    logits = gaussian_logits(torch.tensor([[[20.3, 21.0, 19.6]]]), (41, 41, 41), sigma)
    assert decode(logits, sigma).spread.item() == pytest.approx(sigma, rel=0.01)


def test_the_spread_grows_when_the_mass_is_split():
    both = render(torch.tensor([[[10.0, 16, 16], [40.0, 16, 16]]]), (51, 33, 33), 2.0)[0]
    shares = [0.0, 0.01, 0.1, 0.4]
    maps = [((1 - s) * both[0] + s * both[1]).clamp_min(1e-38).log() for s in shares]
    spreads = decode(torch.stack(maps)[:, None], 2.0).spread[:, 0].tolist()
    expected = [math.sqrt((3 * 2.0**2 + share * 30**2) / 3) for share in shares]
    assert spreads == pytest.approx(expected, rel=0.01)


def test_the_spread_of_a_flat_map_is_far_above_sigma():
    assert decode(torch.zeros(1, 1, 33, 33, 33), 2.0).spread.item() > 8


def test_decoding_needs_no_gradient():
    logits = torch.zeros(1, 1, 8, 8, 8, requires_grad=True)
    assert not decode(logits, 2.0).points.requires_grad
