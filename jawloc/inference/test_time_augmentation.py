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
) -> tuple[Tensor, list[AugmentedCopy]]:
    """Return an image, a copy shifted by a voxel along each axis, and a flipped copy.

    The image is (1, 1, z, y, x), the copies (copy, 1, z, y, x). `flipped_axes` are those along
    which training flips scans; without any, there is no flipped copy.
    """
    shape = tuple(image.shape[2:])
    copies = [AugmentedCopy(shape), AugmentedCopy(shape, shift_voxels=1)]
    if flipped_axes:
        copies.append(AugmentedCopy(shape, flipped_axes=tuple(flipped_axes)))
    # filled in place: copying a scan's downsampled image (30 MB) takes as long as predicting
    batch = image.new_empty((len(copies), *image.shape[1:]))
    batch[0] = image[0]
    shifted = batch[1, 0]
    shifted[1:, 1:, 1:] = image[0, 0, :-1, :-1, :-1]
    shifted[0], shifted[:, 0], shifted[:, :, 0] = shifted[1], shifted[:, 1], shifted[:, :, 1]
    if flipped_axes:
        batch[2, 0] = torch.flip(image[0, 0], [AXES.index(axis) for axis in flipped_axes])
    return batch, copies
