"""Images -> heatmaps: the one path that validation, locate, evaluate and serving share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from jawloc.geometry import Shape
from jawloc.inference.out_of_distribution import ImageFeatures, OodScores
from jawloc.training.augmentation import Volumes
from jawloc.training.coarse_to_fine import StagePrediction, forward_stage
from jawloc.training.stages import Stage


def predict_stages(
    network: nn.Module, stages: Sequence[Stage], images: Volumes, sigmas_voxels: Sequence[float]
) -> list[StagePrediction]:
    """Run a network's stages on images, a tensor (1, z, y, x) each or one of all, in order.

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
    coarse_probability: np.ndarray | None = None  # as `probability`, of the first of two stages
