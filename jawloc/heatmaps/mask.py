"""The mask as a second target: its loss, and the centroid and volume of a predicted one.

Logits are (batch, object, z, y, x). Centroid and volume count voxels by their probability, the
logit's sigmoid, so that they change smoothly where the outline is fuzzy, and an object that is
thinner than a voxel, whose probability stays low everywhere, has both.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from jawloc.heatmaps.target import Factors, outer

LEAST_PROBABILITY = 0.05  # what lies below, everywhere in the scan, would move the centroid
SURE = 0.2  # where no voxel's probability is above, there is no mask
SMOOTHING = 1e-3  # voxels; of a mask without any, Dice is 1 where none is predicted either


def mask_loss(logits: Tensor, targets: Tensor, inside: Factors) -> Tensor:
    """Return cross-entropy, the mean over voxels, plus 1 - Dice; shape (batch, object).

    Targets are the mask's share of each voxel. A mask that isn't known is NaN: its loss is 0 and
    has no gradient. Voxels count by their share `inside` the image, as in `mask_centroids`. Soft
    Dice: Milletari et al. 2016, arXiv 1606.04797.
    """
    known = targets.isfinite().flatten(2).all(-1)
    targets, weights = targets.nan_to_num(0.0), outer(inside).expand_as(targets)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="none")
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * targets * weights).sum((2, 3, 4)) + SMOOTHING
    dice = overlap / (((probability + targets) * weights).sum((2, 3, 4)) + SMOOTHING)
    mean = entropy.sum((2, 3, 4)) / weights.sum((2, 3, 4))
    return torch.where(known, mean + 1 - dice, 0.0)


def mask_centroids(logits: Tensor, inside: Factors) -> Tensor:
    """Return the centroid of each predicted mask in heatmap voxels, (batch, object, 3).

    NaN where there is no mask. `inside` is the share of the voxels along z, y and x that lies in
    the image, each (batch, object, size): the last ones may reach beyond it.
    """
    weights = _weights(logits) * outer(inside)
    total = weights.sum((2, 3, 4))
    total = torch.where(torch.sigmoid(logits.amax((2, 3, 4))) > SURE, total, math.nan)
    axes = []
    for axis, size in enumerate(logits.shape[2:]):
        others = [other + 2 for other in range(3) if other != axis]
        index = torch.arange(size, device=logits.device, dtype=weights.dtype)
        places = index + (inside[axis] - 1) / 2  # the middle of what lies inside
        axes.append((weights.sum(others) * places).sum(-1) / total)
    return torch.stack(axes, dim=-1)


def mask_volumes(logits: Tensor, inside: Factors) -> Tensor:
    """Return the volume of each predicted mask in heatmap voxels, (batch, object)."""
    return (_weights(logits) * outer(inside)).sum((2, 3, 4))


def _weights(logits: Tensor) -> Tensor:
    probability = torch.sigmoid(logits.float())
    return torch.where(probability > LEAST_PROBABILITY, probability, 0.0)
