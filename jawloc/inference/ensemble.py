"""Averages: one network's augmented copies, and the networks of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jawloc.heatmaps.decode import WINDOW_SIGMAS
from jawloc.inference.test_time_augmentation import AugmentedCopy
from jawloc.training.coarse_to_fine import StagePrediction


@dataclass(frozen=True)
class NetworkPrediction:
    """What one network predicts for an image, averaged over its augmented copies.

    Attributes
    ----------
    points : array, shape (object, 3), voxels of the downsampled grid
    width : array, shape (object,), in the same unit, per axis
        Root mean square distance of the probability map from the point, which is wide because the
        map is that of a Gaussian, and wider where the network is unsure.
    spread : array, shape (object,), in the same unit, per axis
        By how much the map is wider than the rendered Gaussian, and the copies' points differ.
    elsewhere : array, shape (object,)
        Share of the first stage's probability that lies away from the point.
    contrast, fine_contrast : array, shape (object,)
        How far the highest logit of the first and of the last stage is above their mean, in nats.
    probability : array, shape (object, z, y, x), of the image itself, on the heatmap's own grid
    """

    points: np.ndarray
    width: np.ndarray
    spread: np.ndarray
    elsewhere: np.ndarray
    contrast: np.ndarray
    fine_contrast: np.ndarray
    probability: np.ndarray


def combine_copies(
    predictions: Sequence[StagePrediction],
    copies: Sequence[AugmentedCopy],
    shape_zyx: Sequence[int],
) -> NetworkPrediction:
    """Average what one network predicts for every augmented copy of an image."""
    found = predictions[-1].decode().points  # (variant, object, 3)
    points = torch.stack([copy.back(p) for copy, p in zip(copies, found, strict=True)])
    first, (width, spread) = predictions[0], _spreads(predictions, points)
    return NetworkPrediction(
        points=_array(points.mean(dim=0)),
        width=_array(width),
        spread=_array(spread),
        elsewhere=_array(_elsewhere(first, found).mean(dim=0)),
        contrast=_array(_contrast(first).mean(dim=0)),
        fine_contrast=_array(_contrast(predictions[-1]).mean(dim=0)),
        probability=predictions[-1].probability(shape_zyx)[0].cpu().numpy(),
    )


def average_networks(network_predictions: Sequence[NetworkPrediction]) -> NetworkPrediction:
    """Average the predictions of several networks; their scatter is added to the spread.

    Everything else is the mean over single networks, because reference ranges are learned from
    single networks: only one network of an ensemble of folds was not trained on a given scan.
    """
    points = np.stack([one.points for one in network_predictions])
    scatter = ((points - points.mean(axis=0)) ** 2).sum(axis=-1).mean(axis=0) / 3
    return NetworkPrediction(
        points=points.mean(axis=0),
        width=np.sqrt(np.mean([one.width**2 for one in network_predictions], axis=0)),
        spread=np.sqrt(np.mean([one.spread**2 for one in network_predictions], axis=0) + scatter),
        elsewhere=np.mean([one.elsewhere for one in network_predictions], axis=0),
        contrast=np.mean([one.contrast for one in network_predictions], axis=0),
        fine_contrast=np.mean([one.fine_contrast for one in network_predictions], axis=0),
        probability=np.mean([one.probability for one in network_predictions], axis=0),
    )


def ensemble_disagreement(points: np.ndarray) -> np.ndarray:
    """Return the standard deviation, per axis, between the networks' points of each object.

    Its expectation does not depend on the number of networks.

    Parameters
    ----------
    points : array, shape (network, object, 3), at least two networks

    Returns
    -------
    array, shape (object,), in the points' unit
    """
    return np.sqrt(points.var(axis=0, ddof=1).mean(axis=-1))


def _spreads(predictions: Sequence[StagePrediction], points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the width of the last stage's heatmap, and its spread beyond the rendered target.

    The fine stage sees its window only. That the object might be elsewhere shows in the coarse
    stage's heatmap, which is then wider than its target. The scatter of the augmented copies'
    points (copy, object, 3) is added.
    """
    beyond = torch.stack([stage.spread_beyond_target().square() for stage in predictions]).sum(0)
    width = predictions[-1].decode().spread.square()
    for earlier in predictions[:-1]:
        width = width + earlier.spread_beyond_target().square()
    scatter = (points - points.mean(dim=0)).square().sum(dim=-1).mean(dim=0) / 3
    return (width.mean(dim=0) + scatter).sqrt(), (beyond.mean(dim=0) + scatter).sqrt()


def _contrast(predictions: StagePrediction) -> Tensor:
    return predictions.logits.amax((2, 3, 4)) - predictions.logits.mean((2, 3, 4))


def _elsewhere(first: StagePrediction, points: Tensor) -> Tensor:
    """Return the share of a heatmap that lies outside a sphere round points (batch, object, 3)."""
    maps = torch.softmax(first.logits.float().flatten(2), -1).view_as(first.logits)
    start = first.start.to(points)
    square = torch.zeros_like(maps)
    for axis, size in enumerate(maps.shape[2:]):
        places = (torch.arange(size, device=maps.device) + 0.5) * first.stride - 0.5
        offset = places + start[..., axis, None] - points[..., axis, None]
        shape = [*offset.shape[:2], 1, 1, 1]
        shape[axis + 2] = size
        square = square + offset.square().view(shape)
    radius = WINDOW_SIGMAS * first.sigma_voxels + first.stride
    return torch.where(square > radius**2, maps, 0).sum((2, 3, 4))


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
