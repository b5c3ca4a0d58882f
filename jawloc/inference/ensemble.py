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
    """One network's prediction for an image, averaged over its augmented copies.

    Arrays without another shape are (object,); lengths are in downsampled voxels, per axis.
    """

    points: np.ndarray  # (object, 3)
    width: np.ndarray  # root mean square distance of the heatmap from the point
    spread: np.ndarray  # how much wider it is than a rendered Gaussian, and the copies' scatter
    distant_probability: np.ndarray  # share of the first stage's heatmap far from the point
    contrast: np.ndarray  # highest minus mean logit of the first stage, nats
    fine_contrast: np.ndarray  # likewise, of the last stage
    probability: np.ndarray  # (object, z, y, x), of the image itself, on the heatmap's own grid
    mask_volume: np.ndarray | None = None  # of the predicted masks; None without mask supervision
    coarse_probability: np.ndarray | None = None  # as `probability`, of the first of two stages


def combine_copies(
    predictions: Sequence[StagePrediction],
    copies: Sequence[AugmentedCopy],
    shape_zyx: Sequence[int],
) -> NetworkPrediction:
    """Average what each stage of one network predicts for the augmented copies of an image."""
    first, last = predictions[0], predictions[-1]
    found = last.decode().points  # (copy, object, 3)
    points = torch.stack([copy.map_back(p) for copy, p in zip(copies, found, strict=True)])
    width, spread = _width_and_spread(predictions, points)
    volumes = last.mask_volume_voxels()
    return NetworkPrediction(
        points=_array(points.mean(dim=0)),
        width=_array(width),
        spread=_array(spread),
        distant_probability=_array(_distant_probability(first, found).mean(dim=0)),
        contrast=_array(_contrast(first).mean(dim=0)),
        fine_contrast=_array(_contrast(last).mean(dim=0)),
        probability=_probability(last, shape_zyx),
        mask_volume=None if volumes is None else _array(volumes.mean(dim=0)),
        coarse_probability=None if first is last else _probability(first, shape_zyx),
    )


def average_networks(predictions: Sequence[NetworkPrediction]) -> NetworkPrediction:
    """Average the predictions of several networks; their scatter is added to the spread.

    The width is a single network's, root mean square, because the radius is calibrated on single
    networks: only one network of an ensemble of folds was not trained on a given scan.
    """
    averaged = {
        name: np.mean([getattr(one, name) for one in predictions], axis=0)
        for name in ("points", "distant_probability", "contrast", "fine_contrast", "probability")
    }
    coarse = [p.coarse_probability for p in predictions if p.coarse_probability is not None]
    points = np.stack([one.points for one in predictions])
    scatter = ((points - points.mean(axis=0)) ** 2).sum(axis=-1).mean(axis=0) / 3
    return NetworkPrediction(
        width=np.sqrt(np.mean([one.width**2 for one in predictions], axis=0)),
        spread=np.sqrt(np.mean([one.spread**2 for one in predictions], axis=0) + scatter),
        coarse_probability=np.mean(coarse, axis=0) if coarse else None,
        **averaged,
    )


def _width_and_spread(
    predictions: Sequence[StagePrediction], points: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the width of the last stage's heatmap, and its spread beyond the rendered target.

    The fine stage sees its window only. If the object may lie outside, the coarse stage's heatmap
    is wider than its target, which is added; so is the scatter of the copies' points.
    """
    beyond = [stage.spread_beyond_target().square() for stage in predictions]
    width = sum(beyond[:-1], start=predictions[-1].decode().spread.square())
    scatter = (points - points.mean(dim=0)).square().sum(dim=-1).mean(dim=0) / 3
    spread = torch.stack(beyond).sum(0).mean(dim=0) + scatter
    return (width.mean(dim=0) + scatter).sqrt(), spread.sqrt()


def _probability(stage: StagePrediction, shape_zyx: Sequence[int]) -> np.ndarray:
    """Return the heatmaps of the image itself, the first of the copies."""
    heatmaps: np.ndarray = stage.probability(shape_zyx)[0].cpu().numpy()
    return heatmaps


def _contrast(stage: StagePrediction) -> Tensor:
    return stage.logits.amax((2, 3, 4)) - stage.logits.mean((2, 3, 4))


def _distant_probability(stage: StagePrediction, points: Tensor) -> Tensor:
    """Return the share of a heatmap that lies outside a sphere round points (batch, object, 3)."""
    maps = torch.softmax(stage.logits.float().flatten(2), -1).view_as(stage.logits)
    start = stage.start.to(points)
    square = torch.zeros_like(maps)
    for axis, size in enumerate(maps.shape[2:]):
        places = (torch.arange(size, device=maps.device) + 0.5) * stage.stride - 0.5
        offset = places + start[..., axis, None] - points[..., axis, None]
        shape = [*offset.shape[:2], 1, 1, 1]
        shape[axis + 2] = size
        square = square + offset.square().view(shape)
    radius = WINDOW_SIGMAS * stage.sigma_voxels + stage.stride
    return torch.where(square > radius**2, maps, 0).sum((2, 3, 4))


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
