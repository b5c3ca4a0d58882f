"""Random transformations of image and points together: draw parameters, then apply them.

One affine map a scan (about the volume's centre: rotation, scaling, flips, shift), one resampling
of the whole batch, then intensities. Rotation is done in physical proportions, so that a grid whose
voxels aren't cubes isn't sheared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from jawloc.geometry import Shape

SLABS = 8  # at most, in which a scan is looked at by several threads
Axis = Literal["z", "y", "x"]
# A batch as one tensor, or as one of each scan: whole volumes need not be copied together.
Volumes = Tensor | Sequence[Tensor]
Border = Literal["border", "zeros"]  # what lies beyond: the last voxels again, or nothing
Degrees = Annotated[float, Field(ge=0, le=180)]


@dataclass(frozen=True)
class AugmentationConfig:
    """How much training scans are augmented; every range is symmetric about the identity."""

    enabled: bool = True  # random changes while training
    flip_axes: tuple[Axis, ...] = ("y", "x")  # axes mirrored with probability ½
    rotation_degrees_zyx: tuple[Degrees, Degrees, Degrees] = (
        180.0,
        6.0,
        6.0,
    )  # largest, of each axis
    scale: Annotated[float, Field(ge=0, lt=0.9)] = 0.1  # 0.1: from 1/1.1 to 1.1 times as large
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.08  # largest shift, as a share of each axis
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.2  # contrast: a factor from 0.8 to 1.2
    offset: Annotated[float, Field(ge=0)] = 0.1  # brightness: largest, as a share of the greys
    gamma: Annotated[float, Field(ge=0, lt=3)] = 0.2  # exponent: from 1/1.2 to 1.2
    noise: Annotated[float, Field(ge=0)] = 0.05  # largest s.d., as a share of the grey range


@dataclass(frozen=True)
class Augmentation:
    """The drawn parameters of a batch; applied again, they give the same result.

    All but the first two are of shape (batch,).
    """

    matrix: Tensor  # (batch, 3, 3): maps offsets from the volume's centre, (z, y, x) in voxels
    shift_voxels: Tensor  # (batch, 3)
    gain: Tensor
    offset: Tensor
    gamma: Tensor
    noise: Tensor
    noise_seeds: Tensor  # int64

    def select(self, scans: slice) -> Augmentation:
        """Return the parameters of some scans of the batch."""
        return Augmentation(**{name: value[scans] for name, value in vars(self).items()})


def draw_augmentation(
    config: AugmentationConfig,
    points: Tensor,
    shape_zyx: Shape,
    voxel_size: Tensor,
    generator: torch.Generator,
) -> Augmentation:
    """Draw the parameters of each scan; shifts are limited so that every point stays inside.

    Parameters
    ----------
    points : tensor, shape (batch, object, 3), voxels; NaN where an object is missing
    voxel_size : tensor, shape (batch, 3); only the proportions matter
    """
    n = len(points)

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * limit

    angles = uniform(1.0, 3) * torch.tensor(config.rotation_degrees_zyx) * math.pi / 180
    scales = (1 + config.scale) ** uniform(1.0)
    flips = torch.ones(n, 3)
    for axis in config.flip_axes:
        flipped = torch.rand(n, generator=generator) < 0.5
        flips[:, "zyx".index(axis)] = torch.where(flipped, -1.0, 1.0)
    physical = _rotation(angles) * scales[:, None, None] * flips[:, None, :]
    size = voxel_size.cpu().float()
    matrix = physical * size[:, None, :] / size[:, :, None]
    extent = torch.tensor(shape_zyx, dtype=torch.float32)
    shift = uniform(config.shift, 3) * extent
    return Augmentation(
        matrix=matrix,
        shift_voxels=_keep_inside(points.cpu(), matrix, shift, extent),
        gain=1 + uniform(config.gain),
        offset=uniform(config.offset),
        gamma=(1 + config.gamma) ** uniform(1.0),
        noise=uniform(config.noise).abs(),
        noise_seeds=torch.randint(2**31, (1,), generator=generator) + torch.arange(n),
    )


def transform_points(points: Tensor, augmentation: Augmentation, shape_zyx: Shape) -> Tensor:
    """Apply the geometric part to points (batch, object, 3) in voxels; missing ones stay NaN."""
    centre = (torch.tensor(shape_zyx, device=points.device) - 1) / 2
    matrix, shift = augmentation.matrix.to(points), augmentation.shift_voxels.to(points)
    return (points - centre) @ matrix.transpose(1, 2) + centre + shift[:, None, :]


def transform_images(
    images: Volumes,
    augmentation: Augmentation,
    shape_zyx: Sequence[int] | None = None,
    pool: int = 1,
    start: Tensor | None = None,
    size_zyx: Sequence[int] | None = None,
    border: Border = "border",
) -> Tensor:
    """Apply the geometric part to images, trilinear; returns (batch, channel, z, y, x).

    Parameters
    ----------
    images : a whole volume of each scan, (channel, z, y, x), pooled by `pool` along each axis
    shape_zyx : of the volume before pooling, where that padded it; by default pool * its shape
    start, size_zyx : tensor, shape (batch, 3), and three ints, in unpooled voxels
        Return only this part of the result; by default all of it.
    """
    like = images[0]
    source = like.new_tensor(like.shape[1:]) * pool
    whole = source if shape_zyx is None else like.new_tensor(shape_zyx)
    part = source if size_zyx is None else like.new_tensor(size_zyx)
    shape = like.shape[1:] if size_zyx is None else size_zyx
    first = like.new_zeros(len(images), 3) if start is None else start.to(like)
    inverse = torch.linalg.inv(augmentation.matrix).to(like)
    # grid_sample asks where each voxel comes from, in (x, y, z) units of half the source; the
    # parameters count from the middle of the whole volume
    back = inverse * (part / 2)[None, None, :] / (source / 2)[None, :, None]
    middle = first + part / 2 - whole / 2 - augmentation.shift_voxels.to(like)
    offset = (inverse @ middle[..., None] + whole[:, None] / 2) / (source / 2)[:, None] - 1
    theta = torch.cat([back.flip(1, 2), offset.flip(1)], dim=2)
    grid = F.affine_grid(theta, [len(images), 1, *shape], align_corners=False)
    # scan by scan: a batch of whole volumes would have to be copied together first; in slabs, as
    # PyTorch shares only the parts of a batch among threads
    slabs = math.gcd(shape[0], SLABS)
    moved = [
        F.grid_sample(
            image.expand(slabs, *image.shape),
            at.unflatten(0, (slabs, -1)),
            padding_mode=border,
            align_corners=False,
        )
        for image, at in zip(images, grid, strict=True)
    ]
    return torch.stack([of_one.transpose(0, 1).flatten(1, 2) for of_one in moved])


def transform_intensities(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Apply the intensity part: gamma on the grey range 0...1, gain, offset, Gaussian noise."""
    gamma, gain, offset = (
        values.to(images)[:, None, None, None, None]
        for values in (augmentation.gamma, augmentation.gain, augmentation.offset)
    )
    positive = images.clamp_min(0)
    images = images - positive + positive**gamma  # negative values are kept
    images = images * gain + offset
    generator = torch.Generator(images.device)
    # one seed a scan: its noise doesn't depend on the other scans of the batch
    scans = zip(images, augmentation.noise_seeds, augmentation.noise, strict=True)
    for image, seed, scale in scans:
        generator.manual_seed(int(seed))
        noise = torch.randn(image.shape, generator=generator, device=images.device)
        image += noise * scale.to(images)
    return images


def _rotation(angles: Tensor) -> Tensor:
    """Return rotation matrices (batch, 3, 3) in (z, y, x) order: about z, then y, then x."""
    rotation = torch.eye(3).repeat(len(angles), 1, 1)
    for angle, (a, b) in zip(angles.unbind(-1), ((1, 2), (0, 2), (0, 1)), strict=True):
        turn = torch.eye(3).repeat(len(angles), 1, 1)
        turn[:, a, a] = turn[:, b, b] = angle.cos()
        turn[:, a, b], turn[:, b, a] = -angle.sin(), angle.sin()
        rotation = turn @ rotation
    return rotation


def _keep_inside(points: Tensor, matrix: Tensor, shift: Tensor, extent: Tensor) -> Tensor:
    """Limit the shift so that the points' bounding box stays inside, if it fits at all."""
    offsets = (points.float() - (extent - 1) / 2) @ matrix.transpose(1, 2)
    half = extent / 2  # to the volume's faces, half a voxel beyond the last centres
    lowest = -half - offsets.nan_to_num(math.inf).amin(1)  # missing points limit nothing
    highest = half - offsets.nan_to_num(-math.inf).amax(1)
    limited = torch.minimum(torch.maximum(shift, lowest), highest)
    return torch.where(lowest <= highest, limited, (lowest + highest) / 2)
