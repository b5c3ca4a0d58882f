"""KL, Dice and MSE between a heatmap's logits and a Gaussian target.

The target is never made dense: a sum over voxels of its product with a map is three small matrix
products with its 1-D factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jawloc.heatmaps.target import Factors

LossName = Literal["kl", "dice", "mse"]


@dataclass(frozen=True)
class HeatmapScores:
    """Scores of each heatmap, all of shape (batch, object); p is the map, t the target."""

    kl_nats: Tensor  # KL(t || p), summed over voxels
    dice: Tensor  # 2 sum(p t) / (sum(p^2) + sum(t^2)), 1 for a perfect map
    mse: Tensor  # mean over voxels of (p - t)^2
    relative_mse: Tensor  # sum((p - t)^2) / sum(t^2), about 1 in size, so that it can be trained on

    def loss(self, name: LossName) -> Tensor:
        """Return the loss of this name, shape (batch, object)."""
        if name == "kl":
            return self.kl_nats
        return 1 - self.dice if name == "dice" else self.relative_mse


def score_heatmaps(logits: Tensor, factors: Factors) -> HeatmapScores:
    """Compare logits (batch, object, z, y, x) with the targets that `factors` describe."""
    logits = logits.float()
    flat = logits.flatten(2)
    log_total = torch.logsumexp(flat, dim=-1)
    cross_entropy = log_total - _inner(logits, factors)
    entropy = -sum((torch.special.xlogy(f, f)).sum(-1) for f in factors)
    probability = torch.exp(flat - log_total[..., None]).view_as(logits)
    p_squared = probability.square().flatten(2).sum(-1)
    t_squared = torch.stack([f.square().sum(-1) for f in factors]).prod(0)
    product = _inner(probability, factors)
    squared_error = (p_squared - 2 * product + t_squared).clamp_min(0)
    return HeatmapScores(
        kl_nats=cross_entropy - entropy,
        dice=2 * product / (p_squared + t_squared),
        mse=squared_error / flat.shape[-1],
        relative_mse=squared_error / t_squared,
    )


def _inner(volume: Tensor, factors: Factors) -> Tensor:
    """Return the sum over voxels of volume * target, shape (batch, object)."""
    z, y, x = factors
    over_x = (volume @ x[:, :, None, :, None]).squeeze(-1)
    over_y = (over_x @ y[..., None]).squeeze(-1)
    return (over_y * z).sum(-1)
