"""Is the object there at all? A small network classifies the patch round a predicted point.

The locator's networks are trained on scans that all show the object: in a scan without it they
infer from its surroundings where it should be, as confidently as ever. The presence classifier
therefore learns to tell patches round an object from the same with the object painted over
(inpainting.py) and from patches elsewhere in the scan; presence_training.py trains it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jawloc.geometry import Shape
from jawloc.training.intensity import IntensityConfig

SIDE = 24  # samples along each edge of a patch, which is a cube
CHANNELS = (8, 16, 32)
GROUPS = 4  # of channels that are normalised together
INTENSITY = IntensityConfig()  # whatever the locator's rule is


class PresenceClassifier(nn.Module):
    """Patches (batch, 1, side, side, side) -> logits (batch, object) that each object is there."""

    # (object, 3): downsampled voxels between a patch's samples; 0 for an object that was not taught
    pitch_voxels: Tensor

    def __init__(self, n_objects: int) -> None:
        super().__init__()
        self.register_buffer("pitch_voxels", torch.ones(n_objects, 3))
        layers = _layer(1, CHANNELS[0], stride=1)
        for n_in, n_out in pairwise(CHANNELS):
            layers += _layer(n_in, n_out, stride=2) + _layer(n_out, n_out, stride=1)
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * CHANNELS[-1], n_objects)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the logits."""
        features = self.features(patches).flatten(2)
        return self.head(torch.cat([features.mean(-1), features.amax(-1)], dim=1))

    @property
    def pool_zyx(self) -> Shape:
        """Return how many voxels are averaged into one before samples are taken."""
        taught = self.pitch_voxels[self.pitch_voxels.amin(1) > 0]
        z, y, x = (max(1, int(pitch)) for pitch in taught.amin(0))
        return z, y, x


def _layer(n_in: int, n_out: int, stride: int) -> list[nn.Module]:
    # not normalised by channel: how bright a patch is compared with the scan tells a lot
    return [
        nn.Conv3d(n_in, n_out, 3, stride=stride, padding=1),
        nn.GroupNorm(GROUPS, n_out),
        nn.LeakyReLU(0.01, inplace=True),
    ]


def presence_logits(
    network: PresenceClassifier, image: Tensor, points: np.ndarray, flipped_axes: Sequence[str]
) -> np.ndarray:
    """Return a logit for each object, positive where it is probably at the predicted point.

    It is NaN for an object that the network was not taught.

    Parameters
    ----------
    image : tensor, shape (z, y, x), downsampled, normalised by `INTENSITY`, on the network's device
    points : array, shape (object, 3), voxels of the image
    flipped_axes : out of z, y and x; logits are averaged over the copies flipped along any of them
    """
    axes = ["zyx".index(axis) + 2 for axis in flipped_axes]
    flips = [flip for n in range(len(axes) + 1) for flip in combinations(axes, n)]
    logits = []
    with torch.inference_mode():
        for number, pitch in enumerate(network.pitch_voxels):
            if not pitch.any():
                logits.append(math.nan)
                continue
            point = torch.as_tensor(points[number], dtype=torch.float32, device=image.device)
            crop, inside = crop_around(image, point, pitch, network.pool_zyx)
            pooled = pool_image(crop, network.pool_zyx)[None, None]
            patch = sample_patches(pooled, inside[None], pitch, network.pool_zyx)
            copies = torch.cat([torch.flip(patch, flip) for flip in flips])
            logits.append(float(network(copies)[:, number].mean()))
    return np.array(logits)


def crop_around(
    image: Tensor, point: Tensor, pitch: Tensor, pool: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the part of an image (z, y, x) that a point's patch needs, and the point in it."""
    part, starts = [], []
    for at, step, factor, size in zip(point, pitch, pool, image.shape, strict=True):
        reach = float(step) * SIDE / 2 + 2 * factor
        last = (size - 1) // factor * factor
        first = min(max(0, int((float(at) - reach) // factor) * factor), last)
        part.append(slice(first, max(first + factor, int(float(at) + reach) + 1)))
        starts.append(first)
    return image[tuple(part)], point - point.new_tensor(starts)


def pool_image(image: Tensor, pool: Sequence[int]) -> Tensor:
    """Return means over blocks of an image (z, y, x); the last blocks may be smaller."""
    if all(factor == 1 for factor in pool):
        return image
    return F.avg_pool3d(image[None], list(pool), ceil_mode=True, count_include_pad=False)[0]


def sample_patches(
    images: Tensor,
    points: Tensor,
    pitch: Tensor,
    pool: Sequence[int],
    rotations: Tensor | None = None,
) -> Tensor:
    """Return the patches round points, trilinear; beyond the border the last voxel repeats.

    Images (batch, 1, z, y, x) are pooled; points (batch, 3) and pitch (3,) or (batch, 3) are in
    voxels before pooling; rotations (batch, 3, 3) are of the patches in the scan.
    """
    along = torch.arange(SIDE, device=images.device) - (SIDE - 1) / 2
    offsets = torch.stack(torch.meshgrid(along, along, along, indexing="ij"), dim=-1)
    if rotations is not None:
        offsets = torch.einsum("bij,zyxj->bzyxi", rotations, offsets)
    factors = points.new_tensor(pool)
    centres = (points + 0.5) / factors - 0.5
    step = (pitch / factors).expand(len(points), 3)
    places = centres[:, None, None, None] + offsets * step[:, None, None, None]
    last = points.new_tensor(images.shape[2:]) - 1
    grid = 2 * places / last.clamp_min(1) - 1
    return F.grid_sample(images, grid.flip(-1), padding_mode="border", align_corners=True)
