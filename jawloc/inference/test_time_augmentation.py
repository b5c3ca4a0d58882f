"""Test-time augmentation: averaging the predictions of an image and its changed copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

AXES = "zyx"


@dataclass(frozen=True)
class AugmentedCopy:
    """A copy of an image of this shape: flipped along some axes, then shifted along each."""

    shape_zyx: tuple[int, ...]
    shift_voxels: int = 0
    flipped_axes: tuple[str, ...] = ()

    def map_back(self, points: Tensor) -> Tensor:
        """Map points (..., 3) of the copy back to the original image."""
        points = points - self.shift_voxels
        flipped = [axis in self.flipped_axes for axis in AXES]
        last = points.new_tensor(self.shape_zyx) - 1
        points = torch.where(torch.tensor(flipped, device=points.device), last - points, points)
        return torch.minimum(points.clamp_min(-0.5), last + 0.5)  # inside the image


def augmented_copies(
    image: Tensor, flipped_axes: Sequence[str]
) -> tuple[list[Tensor], list[AugmentedCopy]]:
    """Return an image, a copy shifted by a voxel along each axis, and a flipped copy.

    All are (1, z, y, x); the first is the image itself, since copying 30 MB takes as long as
    predicting. `flipped_axes` are those along which training flips scans; without any, there is no
    flipped copy.
    """
    shape = tuple(image.shape[1:])
    shifted = torch.empty_like(image)
    shifted[:, 1:, 1:, 1:] = image[:, :-1, :-1, :-1]
    for axis in (1, 2, 3):
        shifted.select(axis, 0).copy_(shifted.select(axis, 1))
    images, copies = [image, shifted], [AugmentedCopy(shape), AugmentedCopy(shape, 1)]
    if flipped_axes:
        images.append(torch.flip(image, [AXES.index(axis) + 1 for axis in flipped_axes]))
        copies.append(AugmentedCopy(shape, flipped_axes=tuple(flipped_axes)))
    return images, copies
