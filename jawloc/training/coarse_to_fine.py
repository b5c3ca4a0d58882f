"""Coarse-to-fine stages: the whole scan pooled, then a window of full detail round the point.

A grid of 512 x 128 x 128 holds 8 million voxels, nearly all of them far from the jaw. On such
grids the coarse stage gets the scan pooled to voxels four times as long, and the fine stage a small
window of full detail round the point that the coarse stage predicts. Both are trained at once, each
at its own sigma. On small grids a single stage gets the whole scan.

Prediction, in which each window lies round the point of the stage before, is in
`jawloc.inference.predict`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from jawloc.geometry import Shape
from jawloc.heatmaps.decode import Decoded, decode
from jawloc.heatmaps.losses import HeatmapScores, score_heatmaps
from jawloc.heatmaps.mask import mask_centroids, mask_volumes
from jawloc.heatmaps.target import (
    Factors,
    gaussian_factors,
    rendered_spread,
    with_stand_ins,
)
from jawloc.training.augmentation import Augmentation, Volumes
from jawloc.training.network import CoarseToFine, UNet
from jawloc.training.stage_input import stage_input
from jawloc.training.stages import (
    Stage,
    heatmap_shape,
    shares_inside,
    to_heatmap_grid,
    to_image_grid,
)

JITTER = 0.25  # share of a window by which training moves it off the object's point


@dataclass(frozen=True)
class StagePrediction:
    """What one stage of a network predicts for a batch."""

    logits: Tensor  # (batch, object, z, y, x)
    start: Tensor  # (batch, object, 3): the image voxel at which each heatmap begins
    stride: int  # image voxels per heatmap voxel along each axis
    sigma_voxels: float  # of the target heatmaps, in image voxels
    shape_zyx: tuple[int, ...]  # of the image
    # With mask supervision: logits like those above, and the centroid's weight, (object,)
    mask_logits: Tensor | None = None
    mask_share: Tensor | None = None

    @property
    def _heatmap_sigma(self) -> float:
        return self.sigma_voxels / self.stride

    @cached_property
    def _decoded(self) -> Decoded:
        """Points and spread in heatmap voxels."""
        return decode(self.logits, self._heatmap_sigma)

    def score(self, points: Tensor) -> HeatmapScores:
        """Compare the heatmaps with those of the true points (batch, object, 3; image voxels)."""
        centres = to_heatmap_grid(points - self.start, self.stride)
        targets = gaussian_factors(centres, self.logits.shape[2:], self._heatmap_sigma)
        return score_heatmaps(self.logits, targets)

    def decode(self) -> Decoded:
        """Return points, inside the image, and spread, both in image voxels.

        With mask supervision, each point lies between the heatmap's and the mask's centroid.
        """
        points = self.heatmap_points()
        centroids = self.mask_points()
        if centroids is not None and self.mask_share is not None:
            moved = points + self.mask_share[:, None] * (centroids - points)
            points = torch.where(centroids.isnan(), points, moved)
        # heatmap voxels may reach beyond the border
        highest = points.new_tensor(self.shape_zyx) - 0.5
        return Decoded(torch.minimum(points, highest), self._decoded.spread * self.stride)

    def heatmap_points(self) -> Tensor:
        """Return the points of the heatmaps alone, (batch, object, 3), image voxels."""
        return to_image_grid(self._decoded.points, self.stride) + self.start

    def mask_points(self) -> Tensor | None:
        """Return the predicted masks' centroids likewise, NaN for an empty mask.

        None without mask supervision.
        """
        if self.mask_logits is None:
            return None
        centroids = mask_centroids(self.mask_logits.detach(), self.inside)
        return to_image_grid(centroids, self.stride) + self.start

    def mask_volume_voxels(self) -> Tensor | None:
        """Return the predicted masks' volumes in image voxels, (batch, object), or None."""
        if self.mask_logits is None:
            return None
        return mask_volumes(self.mask_logits.detach(), self.inside) * self.stride**3

    @property
    def inside(self) -> Factors:
        """Which share of each heatmap voxel lies in the image, along z, y and x."""
        return shares_inside(self.start, self.logits.shape[2:], self.stride, self.shape_zyx)

    def spread_beyond_target(self) -> Tensor:
        """Return by how much the heatmaps are wider than targets at the decoded points.

        (batch, object), image voxels: the root of the variances' difference, 0 if that is negative.
        """
        found = self._decoded
        expected = rendered_spread(found.points, self.logits.shape[2:], self._heatmap_sigma)
        return (found.spread.square() - expected.square()).clamp_min(0).sqrt() * self.stride

    def probability(self, shape_zyx: Sequence[int]) -> Tensor:
        """Return the heatmaps (batch, object, z, y, x) on the heatmap grid of the whole image."""
        maps = torch.softmax(self.logits.float().flatten(2), -1).view_as(self.logits)
        whole = maps.new_zeros(*maps.shape[:2], *heatmap_shape(shape_zyx, self.stride))
        for one_map, into, start in zip(
            maps.flatten(0, 1), whole.flatten(0, 1), self.start.flatten(0, 1), strict=True
        ):
            z, y, x = (int(s) // self.stride for s in start)
            room = into[z:, y:, x:][tuple(slice(n) for n in one_map.shape)]
            room.copy_(one_map[tuple(slice(n) for n in room.shape)])
        return whole


def forward_training_batch(
    network: nn.Module,
    stages: Sequence[Stage],
    images: Volumes,
    points: Tensor,
    sigmas_voxels: Sequence[float],
    augmentation: Augmentation | None,
    jitter: Tensor | None,
    pooled: Volumes | None = None,
) -> list[StagePrediction]:
    """Run every stage on an augmented batch; the fine stage's window lies near the true points.

    Parameters
    ----------
    images : a tensor of shape (1, z, y, x) for each scan, or one of all, not yet augmented
    points : tensor, shape (batch, object, 3), image voxels, augmented
        Where a scan lacks an object (NaN), its window lies amid the scan's other objects.
    sigmas_voxels : of each stage's target heatmaps, in image voxels
    jitter : tensor, shape (batch, object, 3), from -1 to 1, or None without a fine stage
        Where in the window a point lies.
    pooled : the images as the first stage averages them, if they are known already
    """
    predictions, points = [], with_stand_ins(points)
    for number, (stage, sigma) in enumerate(zip(stages, sigmas_voxels, strict=True)):
        near = None
        if stage.window is not None and jitter is not None:
            near = points + jitter.to(points) * JITTER * points.new_tensor(stage.window)
        first = pooled if number == 0 else None
        predictions.append(
            forward_stage(network, number, stage, images, sigma, near, augmentation, first)
        )
    return predictions


def forward_stage(
    network: nn.Module,
    number: int,
    stage: Stage,
    images: Volumes,
    sigma_voxels: float,
    near: Tensor | None,
    augmentation: Augmentation | None,
    pooled: Volumes | None = None,
) -> StagePrediction:
    """Run one stage of a network on a batch of images.

    Parameters
    ----------
    images : a tensor of shape (1, z, y, x) for each scan, or one of all
    number : of the stage, from 0
    near : tensor, shape (batch, object, 3), image voxels: the centres of a fine stage's windows
    augmentation : applied to the images first
    pooled : the images as the stage averages them, if they are known already
    """
    shape = tuple(images[0].shape[1:])
    part = network.parts[number] if isinstance(network, CoarseToFine) else network
    mask_logits, mask_share = None, part.mask_share if isinstance(part, UNet) else None
    if near is None or stage.window is None:
        logits = _forward(part, stage_input(images, stage, augmentation, pooled=pooled))
        if mask_share is not None:
            logits, mask_logits = logits.split(len(mask_share), dim=1)
        start = logits.new_zeros(*logits.shape[:2], 3)
    else:
        start = window_start(near, stage.window, stage.heatmap_stride, shape)
        # every object has a window of its own, and in it its own channel
        objects = range(near.shape[1])
        inputs = [stage_input(images, stage, augmentation, start[:, k]) for k in objects]
        every = _forward(part, torch.cat(inputs)).unflatten(0, (len(objects), -1))
        logits = torch.stack([every[k, :, k] for k in objects], dim=1)
        if mask_share is not None:
            mask_logits = torch.stack([every[k, :, len(objects) + k] for k in objects], dim=1)
    return StagePrediction(
        logits, start, stage.heatmap_stride, sigma_voxels, shape, mask_logits, mask_share
    )


def _forward(network: nn.Module, inputs: Tensor) -> Tensor:
    # half the bytes and tensor cores on a GPU that has them for bf16; older ones only emulate it,
    # and on CPUs it was no faster (see experiments/log.md)
    fast = inputs.is_cuda and torch.cuda.get_device_capability(inputs.device) >= (8, 0)
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=fast):
        return network(inputs).float()


def window_start(points: Tensor, window: Shape, stride: int, shape_zyx: Sequence[int]) -> Tensor:
    """Return where windows round points (..., 3) begin: inside the image, on a heatmap voxel."""
    size = points.new_tensor(window)
    last = torch.ceil((points.new_tensor(list(shape_zyx)) - size) / stride).clamp_min(0)
    wanted = torch.round((points + 0.5 - size / 2) / stride)
    return torch.minimum(wanted.clamp_min(0), last) * stride
