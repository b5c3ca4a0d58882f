"""KL, Dice and MSE computed from factors, against the same computed from dense maps."""

from __future__ import annotations

import math

import pytest
import torch

from jawloc.heatmaps.losses import LossName, score_heatmaps
from jawloc.heatmaps.target import gaussian_factors, render

SHAPE = (13, 10, 9)
LOSSES: tuple[LossName, ...] = ("kl", "dice", "mse")


def random_case(sigma: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits (2, 3, *SHAPE), points (2, 3, 3) and the dense targets."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 3, *SHAPE, generator=generator)
    points = torch.rand(2, 3, 3, generator=generator) * torch.tensor(SHAPE) - 0.5
    return logits, points, render(points, SHAPE, sigma)


def gaussian_logits(point: tuple[float, float, float], shape, sigma: float) -> torch.Tensor:
    axes = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
    square = sum((axis - centre) ** 2 for axis, centre in zip(axes, point, strict=True))
    return (-square / (2 * sigma**2))[None, None]


@pytest.mark.parametrize("sigma", [0.6, 2.0, 8.0])
def test_kl_is_that_of_the_dense_maps(sigma):
    logits, points, target = random_case(sigma)
    scores = score_heatmaps(logits, gaussian_factors(points, SHAPE, sigma))
    log_p = logits.flatten(2).double().log_softmax(-1)
    t = target.flatten(2).double()
    expected = (torch.xlogy(t, t) - t * log_p).sum(-1)
    torch.testing.assert_close(scores.kl_nats.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.6, 2.0, 8.0])
def test_dice_is_that_of_the_dense_maps(sigma):
    logits, points, target = random_case(sigma)
    p, t = logits.flatten(2).softmax(-1), target.flatten(2)
    expected = 2 * (p * t).sum(-1) / (p.square().sum(-1) + t.square().sum(-1))
    scores = score_heatmaps(logits, gaussian_factors(points, SHAPE, sigma))
    torch.testing.assert_close(scores.dice, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.6, 2.0, 8.0])
def test_mse_is_that_of_the_dense_maps(sigma):
    logits, points, target = random_case(sigma)
    p, t = logits.flatten(2).softmax(-1), target.flatten(2)
    scores = score_heatmaps(logits, gaussian_factors(points, SHAPE, sigma))
    torch.testing.assert_close(scores.mse, (p - t).square().mean(-1), rtol=1e-4, atol=1e-9)
    relative = (p - t).square().sum(-1) / t.square().sum(-1)
    torch.testing.assert_close(scores.relative_mse, relative, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("offset", [(0.0, 0.0, 1.0), (2.0, 0.0, 0.0), (1.5, -2.0, 0.7)])
def test_kl_of_a_displaced_gaussian_is_half_its_squared_distance_in_sigmas(sigma, offset):
    """d^2 / (2 sigma^2): why a threshold of 1 nat lets an error of sqrt(2) sigma pass."""
    shape, truth = (37, 35, 36), (18.2, 17.0, 17.6)
    moved = tuple(a + b for a, b in zip(truth, offset, strict=True))
    factors = gaussian_factors(torch.tensor([[truth]]), shape, sigma)
    kl = score_heatmaps(gaussian_logits(moved, shape, sigma), factors).kl_nats.item()
    assert kl == pytest.approx(sum(o**2 for o in offset) / (2 * sigma**2), rel=1e-3)


@pytest.mark.parametrize("point", [(6.2, 5.0, 4.4), (0.0, 0.0, 0.0), (-0.5, 9.5, 8.5)])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 8.0])
def test_a_perfect_map_scores_kl_0_dice_1_and_mse_0(point, sigma):
    factors = gaussian_factors(torch.tensor([[point]]), SHAPE, sigma)
    scores = score_heatmaps(gaussian_logits(point, SHAPE, sigma), factors)
    assert scores.kl_nats.item() == pytest.approx(0, abs=1e-4)
    assert scores.dice.item() == pytest.approx(1, abs=1e-5)
    assert scores.mse.item() == pytest.approx(0, abs=1e-9)


def test_a_map_far_from_its_target_scores_dice_0():
    factors = gaussian_factors(torch.tensor([[[2.0, 2.0, 2.0]]]), (40, 12, 12), 1.0)
    scores = score_heatmaps(gaussian_logits((35.0, 9.0, 9.0), (40, 12, 12), 1.0), factors)
    assert scores.dice.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_the_dense_loss(name):
    logits, points, target = random_case(2.0)
    logits = logits.requires_grad_()
    factors = gaussian_factors(points, SHAPE, 2.0)
    (ours,) = torch.autograd.grad(score_heatmaps(logits, factors).loss(name).sum(), logits)
    log_p, t = logits.flatten(2).log_softmax(-1), target.flatten(2)
    p = log_p.exp()
    squares = t.square().sum(-1)
    dense = {
        "kl": -(t * log_p).sum(),
        "dice": -(2 * (p * t).sum(-1) / (p.square().sum(-1) + squares)).sum(),
        "mse": ((p - t).square().sum(-1) / squares).sum(),
    }
    (expected,) = torch.autograd.grad(dense[name], logits)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("sigma", [8.0, 1.0, 0.3, 0.05, 1e-3])
@pytest.mark.parametrize("start", ["flat", "far", "perfect", "huge"])
def test_no_loss_or_gradient_is_nan(name, sigma, start):
    """Also with a minimum sigma well below a heatmap voxel, where most of the target is 0."""
    point = (6.2, 5.0, 4.4)
    logits = {
        "flat": torch.zeros(1, 1, *SHAPE),
        "far": gaussian_logits((0.0, 0.0, 0.0), SHAPE, 0.3),
        "perfect": gaussian_logits(point, SHAPE, max(sigma, 0.05)),
        "huge": 1e4 * torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0)),
    }[start].requires_grad_()
    factors = gaussian_factors(torch.tensor([[point]]), SHAPE, sigma)
    loss = score_heatmaps(logits, factors).loss(name).mean()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_lowest_for_the_perfect_map(name):
    factors = gaussian_factors(torch.tensor([[[6.0, 5.0, 4.0]]]), SHAPE, 1.5)

    def loss(z: float, sigma: float) -> float:
        logits = gaussian_logits((z, 5.0, 4.0), SHAPE, sigma)
        return score_heatmaps(logits, factors).loss(name).item()

    perfect = loss(6.0, 1.5)
    assert perfect == pytest.approx(0, abs=1e-5)
    others = [(6.5, 1.5), (4.0, 1.5), (6.0, 1.2), (6.0, 2.5)]
    assert min(loss(z, sigma) for z, sigma in others) > perfect + 1e-3


def test_half_precision_logits_are_scored_in_single_precision():
    """A sum over a volume overflows or drowns in half precision."""
    factors = gaussian_factors(torch.tensor([[[20.0, 16.0, 16.0]]]), (40, 32, 32), 2.0)
    flat = torch.zeros(1, 1, 40, 32, 32, dtype=torch.bfloat16)
    kl = score_heatmaps(flat, factors).kl_nats
    entropy_of_gaussian = 1.5 * math.log(2 * math.pi * math.e * 2.0**2)
    assert kl.dtype == torch.float32
    assert kl.item() == pytest.approx(math.log(40 * 32 * 32) - entropy_of_gaussian, abs=0.01)
