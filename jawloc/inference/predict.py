"""Image -> heatmaps -> points, for validation, locate, evaluate and serving alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from jawloc.geometry import Shape
from jawloc.inference.ensemble import average_networks, combine_copies
from jawloc.inference.out_of_distribution import (
    ImageFeatures,
    OodScores,
    ensemble_ood_scores,
    image_features,
)
from jawloc.inference.test_time_augmentation import AugmentedCopy, augmented_copies
from jawloc.training.coarse_to_fine import StagePrediction, forward_stage
from jawloc.training.intensity import normalise
from jawloc.training.presence_classifier import INTENSITY, presence_logits
from jawloc.training.stages import Stage

if TYPE_CHECKING:
    from jawloc.inference.locator import Locator


def predict_stages(
    network: nn.Module, stages: Sequence[Stage], images: Tensor, sigmas_voxels: Sequence[float]
) -> list[StagePrediction]:
    """Run a network's stages on images (batch, 1, z, y, x), in order.

    A stage with a window places it where the stage before finds the object; the last stage gives
    the position. The sigmas are of each stage's heatmaps, in image voxels.
    """
    predictions: list[StagePrediction] = []
    for number, (stage, sigma) in enumerate(zip(stages, sigmas_voxels, strict=True)):
        near = predictions[-1].decode().points if predictions else None
        predictions.append(forward_stage(network, number, stage, images, sigma, near, None))
    return predictions


@dataclass(frozen=True)
class Prediction:
    """What the networks predict for one downsampled image, in its voxels."""

    points_voxels: np.ndarray  # (object, 3)
    spread_voxels: np.ndarray  # (object,), as in `Localisation`
    width_voxels: np.ndarray  # likewise; of an ensemble, that of a single network's heatmap
    # (object, z, y, x), on the heatmap's own, coarser grid; zero outside the fine stage's window
    probability: np.ndarray
    shape_zyx: Shape  # of the image
    ood_scores: tuple[OodScores, ...]  # of each object's position
    image_features: ImageFeatures  # for the scan's own out-of-distribution scores


def predict(locator: Locator, image: np.ndarray) -> Prediction:
    """Find the objects in a downsampled image, averaged over networks and augmented copies.

    The image (z, y, x) holds grey values on the locator's grid. The logits of the presence
    classifiers, averaged, are one more out-of-distribution score.
    """
    device = next(locator.networks[0].parameters()).device
    values = torch.from_numpy(normalise(image, locator.intensity))[None, None].to(device)
    images, copies = values, [AugmentedCopy(image.shape)]
    if locator.test_time_augmentation:
        images, copies = augmented_copies(values, locator.flipped_axes)
    stages, parts = locator.network_config.stages(), []
    with torch.inference_mode():
        for network, sigmas in zip(locator.networks, locator.sigma_voxels, strict=True):
            predictions = predict_stages(network.eval(), stages, images, sigmas)
            parts.append(combine_copies(predictions, copies, image.shape))
    found = average_networks(parts)
    scores = ensemble_ood_scores(parts, image.shape)
    if locator.presence_classifiers:
        if locator.intensity != INTENSITY:
            values = torch.from_numpy(normalise(image, INTENSITY))[None, None].to(device)
        logits = [
            presence_logits(classifier, values[0, 0], found.points, locator.flipped_axes)
            for classifier in locator.presence_classifiers
        ]
        present = np.mean(logits, axis=0).tolist()
        scores = [{**own, "presence": logit} for own, logit in zip(scores, present, strict=True)]
    z, y, x = image.shape
    estimates = (found.points, found.spread, found.width, found.probability)
    return Prediction(*estimates, (z, y, x), tuple(scores), image_features(image))
