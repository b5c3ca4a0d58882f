"""Test-time augmentation: changed copies of one image, whose predictions are averaged.

A network that is certain predicts the same position in an image that was shifted by a voxel, or
flipped as training flips scans. The copies' points are averaged; how far they differ counts as
spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

AXES = "zyx"


@dataclass(frozen=True)
class AugmentedCopy:
    """How one copy of an image was changed.

    Attributes
    ----------
    shape_zyx : of the image
    shift_voxels : by which the content was moved along each axis, after it was flipped
    flipped_axes : out of z, y and x
    """

    shape_zyx: tuple[int, ...]
    shift_voxels: int = 0
    flipped_axes: tuple[str, ...] = ()

    def back(self, points: Tensor) -> Tensor:
        """Map points (..., 3) of the copy back to the original image."""
        points = points - self.shift_voxels
        turned = [axis in self.flipped_axes for axis in AXES]
        last = points.new_tensor(self.shape_zyx) - 1
        points = torch.where(torch.tensor(turned, device=points.device), last - points, points)
        return torch.minimum(points.clamp_min(-0.5), last + 0.5)  # what was moved out stays inside


def augmented_copies(
    image: Tensor, flipped_axes: Sequence[str]
) -> tuple[Tensor, list[AugmentedCopy]]:
    """Return an image, a copy shifted by a voxel along each axis, and a flipped copy.

    Parameters
    ----------
    image : tensor, shape (1, 1, z, y, x)
    flipped_axes : those along which training flips scans; without any, there is no flipped copy

    Returns
    -------
    tensor, shape (copy, 1, z, y, x), and how each copy was changed
    """
    shape = tuple(image.shape[2:])
    every = [AugmentedCopy(shape), AugmentedCopy(shape, shift_voxels=1)]
    if flipped_axes:
        every.append(AugmentedCopy(shape, flipped_axes=tuple(flipped_axes)))
    # filled in place: copying a scan's downsampled image (30 MB) takes as long as predicting
    batch = image.new_empty((len(every), *image.shape[1:]))
    batch[0] = image[0]
    moved = batch[1, 0]
    moved[1:, 1:, 1:] = image[0, 0, :-1, :-1, :-1]
    moved[0], moved[:, 0], moved[:, :, 0] = moved[1], moved[:, 1], moved[:, :, 1]
    if flipped_axes:
        batch[2, 0] = torch.flip(image[0, 0], [AXES.index(axis) for axis in flipped_axes])
    return batch, every
