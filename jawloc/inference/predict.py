"""Image -> heatmaps -> points: the one path that validation, locate, evaluate and serving share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from jawloc.geometry import Shape
from jawloc.inference.ensemble import NetworkPrediction, average_networks, combine_copies
from jawloc.inference.out_of_distribution import (
    ImageFeatures,
    ensemble_ood_scores,
    image_features,
)
from jawloc.inference.test_time_augmentation import AugmentedCopy, augmented_copies
from jawloc.training.coarse_to_fine import StagePrediction, forward_stage
from jawloc.training.intensity import IntensityConfig, normalise
from jawloc.training.presence_classifier import INTENSITY, PresenceClassifier, presence_logits
from jawloc.training.stages import Stage


def predict_stages(
    network: nn.Module, stages: Sequence[Stage], images: Tensor, sigmas_voxels: Sequence[float]
) -> list[StagePrediction]:
    """Run a network on images (batch, 1, z, y, x); each stage's window lies where the last points.

    Parameters
    ----------
    sigmas_voxels : sequence of float
        Of each stage's heatmaps, in image voxels.

    Returns
    -------
    Each stage's prediction, in order; the last gives the position.
    """
    predictions: list[StagePrediction] = []
    for number, (stage, sigma) in enumerate(zip(stages, sigmas_voxels, strict=True)):
        near = predictions[-1].decode().points if predictions else None
        predictions.append(forward_stage(network, number, stage, images, sigma, near, None))
    return predictions


@dataclass(frozen=True)
class Prediction:
    """What the networks predict for one downsampled image.

    Attributes
    ----------
    points_voxels : array, shape (object, 3), voxels of the downsampled grid
    spread_voxels, width_voxels : arrays, shape (object,), voxels of the downsampled grid
        As in `Localisation`; of several networks, the width is that of a single one's map.
    probability : array, shape (object, z, y, x), on the heatmap's own, coarser grid; zero outside
        the fine stage's window
    shape_zyx : of the downsampled grid
    ood_scores : of each object's position, by name (see out_of_distribution.py)
    image_features : from which the scan's own out-of-distribution scores are computed
    """

    points_voxels: np.ndarray
    spread_voxels: np.ndarray
    width_voxels: np.ndarray
    probability: np.ndarray
    shape_zyx: Shape
    ood_scores: tuple[Mapping[str, float], ...]
    image_features: ImageFeatures


def predict(
    image: np.ndarray,
    networks: Sequence[nn.Module],
    stages: Sequence[Stage],
    sigmas_voxels: Sequence[Sequence[float]],
    intensity: IntensityConfig,
    *,
    test_time_augmentation: bool = True,
    flipped_axes: Sequence[str] = (),
    presence_classifiers: Sequence[PresenceClassifier] = (),
) -> Prediction:
    """Find the objects in a downsampled image, averaged over networks and augmented copies.

    Parameters
    ----------
    image : array, shape (z, y, x), grey values on the networks' grid
    stages : of every network
    sigmas_voxels : of each network's stages, in image voxels
    flipped_axes : out of z, y and x: those along which training flipped scans
    presence_classifiers : whose logits, averaged, are one more out-of-distribution score
    """
    device = next(networks[0].parameters()).device
    values = torch.from_numpy(normalise(image, intensity))[None, None].to(device)
    every, copies = values, [AugmentedCopy(image.shape)]
    if test_time_augmentation:
        every, copies = augmented_copies(values, flipped_axes)
    parts: list[NetworkPrediction] = []
    with torch.inference_mode():
        for network, sigmas in zip(networks, sigmas_voxels, strict=True):
            predictions = predict_stages(network.eval(), stages, every, sigmas)
            parts.append(combine_copies(predictions, copies, image.shape))
    found = average_networks(parts)
    scores = ensemble_ood_scores(parts, image.shape)
    if presence_classifiers:
        shown = values[0, 0]
        if intensity != INTENSITY:
            shown = torch.from_numpy(normalise(image, INTENSITY)).to(device)
        logits = [
            presence_logits(one, shown, found.points, flipped_axes) for one in presence_classifiers
        ]
        present = np.mean(logits, axis=0)
        scores = [{**own, "presence": float(present[i])} for i, own in enumerate(scores)]
    z, y, x = image.shape
    return Prediction(
        points_voxels=found.points,
        spread_voxels=found.spread,
        width_voxels=found.width,
        probability=found.probability,
        shape_zyx=(z, y, x),
        ood_scores=tuple(scores),
        image_features=image_features(image),
    )
