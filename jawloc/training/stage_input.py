"""What each stage sees of a scan: all of it, pooled, or a window of full detail.

Both are cut from the augmented scan, of which no more than that is resampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from jawloc.geometry import Shape
from jawloc.heatmaps.target import outer
from jawloc.training.augmentation import (
    SLABS,
    Augmentation,
    Border,
    Volumes,
    transform_images,
    transform_intensities,
)
from jawloc.training.network import pad_to_multiple
from jawloc.training.stages import Stage, shares_inside


def stage_input(
    images: Volumes,
    stage: Stage,
    augmentation: Augmentation | None,
    start: Tensor | None = None,
    pooled: Volumes | None = None,
) -> Tensor:
    """Return all of the pooled images or, from `start` on, a window of each.

    `pooled` are the images as the stage averages them, where they are known already.
    """
    shape = images[0].shape[1:]
    if pooled is None:
        pooled = [pool_volume(image, stage.pool) for image in images]
    seen = _seen(pooled, stage, augmentation, start, shape)
    return seen if augmentation is None else transform_intensities(seen, augmentation)


def mask_targets(
    masks: Volumes, stage: Stage, augmentation: Augmentation | None, start: Tensor
) -> Tensor:
    """Return the share of each heatmap voxel that each scan's masks (object, z, y, x) take up.

    `start` (batch, object, 3) is where the heatmaps begin. What lies beyond the image's border, in
    part of a heatmap voxel or all of it, has no mask and doesn't count.
    """
    stride, shape = stage.heatmap_stride, masks[0].shape[1:]
    shown = torch.cat(
        [
            _seen([mask[k : k + 1] for mask in masks], stage, augmentation, at, border="zeros")
            for k, at in enumerate(start.unbind(1))
        ],
        dim=1,
    )
    shown = shown * outer(shares_inside(start, shown.shape[2:], 1, shape))
    z, y, x = ((-n) % stride for n in shown.shape[2:])
    shares = F.avg_pool3d(F.pad(shown, (0, x, 0, y, 0, z)), stride)
    inside = outer(shares_inside(start, shares.shape[2:], stride, shape))
    return torch.where(inside > 0, shares / inside, shares)


def pool_volume(image: Tensor, factor: int) -> Tensor:
    """Average an image (1, z, y, x), in slabs, as PyTorch shares only a batch among threads."""
    if factor == 1:
        return image
    padded = pad_to_multiple(image[None], factor)[0]
    slabs = padded.unflatten(1, (math.gcd(padded.shape[1] // factor, SLABS), -1)).transpose(0, 1)
    return F.avg_pool3d(slabs, factor).transpose(0, 1).flatten(1, 2)


def _seen(
    pooled: Volumes,
    stage: Stage,
    augmentation: Augmentation | None,
    start: Tensor | None,
    shape_zyx: Sequence[int] | None = None,
    border: Border = "border",
) -> Tensor:
    """Return what a stage sees of pooled images, moved, and cut to its window if it has one.

    `shape_zyx` is that of the image before pooling, where this padded it.
    """
    if augmentation is not None:
        at = (stage.pool, start, stage.window)
        return transform_images(pooled, augmentation, shape_zyx, *at, border=border)
    if start is not None and stage.window is not None:
        return _crop(pooled, start, stage.window)
    return pooled if isinstance(pooled, Tensor) else torch.stack(list(pooled))


def _crop(images: Volumes, start: Tensor, window: Shape) -> Tensor:
    """Return the window of each image; beyond the border its last voxels are repeated."""
    crops = []
    for image, first in zip(images, start.long(), strict=True):
        for axis, (size, whole) in enumerate(zip(window, image.shape[1:], strict=True)):
            index = first[axis] + torch.arange(size, device=image.device)
            image = image.index_select(axis + 1, index.clamp(0, whole - 1))
        crops.append(image)
    return torch.stack(crops)
