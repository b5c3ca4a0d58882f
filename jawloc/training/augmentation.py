"""Random changes that move image and points together: draw parameters, then apply them.

One affine map a scan (about the volume's centre: rotation, scaling, flips, shift), one resampling
of the whole batch, then intensity changes. Rotation is done in physical proportions, so that
a grid whose voxels aren't cubes isn't sheared.
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

Axis = Literal["z", "y", "x"]
Degrees = Annotated[float, Field(ge=0, le=180)]


@dataclass(frozen=True)
class AugmentationConfig:
    """How far scans are changed during training; every range is symmetric about no change."""

    enabled: bool = True
    flip_axes: tuple[Axis, ...] = ("y", "x")  # each with probability one half
    rotation_degrees_zyx: tuple[Degrees, Degrees, Degrees] = (180.0, 6.0, 6.0)  # about each axis
    scale: Annotated[float, Field(ge=0, lt=0.9)] = 0.1  # 0.1: from 1/1.1 to 1.1 times as large
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.08  # share of each axis
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.2  # share of the grey range
    offset: Annotated[float, Field(ge=0)] = 0.1  # share of the grey range
    gamma: Annotated[float, Field(ge=0, lt=3)] = 0.2  # exponent from 1/1.2 to 1.2
    noise: Annotated[float, Field(ge=0)] = 0.05  # largest s.d., share of the grey range


@dataclass(frozen=True)
class Augmentation:
    """One drawn set of changes for a batch; the same one gives the same result again.

    Attributes
    ----------
    matrix : tensor, shape (batch, 3, 3)
        Maps offsets from the volume's centre, before -> after, (z, y, x) in voxels.
    shift_voxels : tensor, shape (batch, 3)
    gain, offset, gamma, noise : tensors, shape (batch,)
    noise_seeds : tensor of int64, shape (batch,)
    """

    matrix: Tensor
    shift_voxels: Tensor
    gain: Tensor
    offset: Tensor
    gamma: Tensor
    noise: Tensor
    noise_seeds: Tensor

    def select(self, scans: slice) -> Augmentation:
        """Return the changes of some scans of the batch."""
        return Augmentation(**{name: value[scans] for name, value in vars(self).items()})


def draw_augmentation(
    config: AugmentationConfig,
    points: Tensor,
    shape_zyx: tuple[int, int, int],
    voxel_size: Tensor,
    generator: torch.Generator,
) -> Augmentation:
    """Draw one change a scan; the shift is limited so that every point stays inside the volume.

    Parameters
    ----------
    points : tensor, shape (batch, object, 3)
        (z, y, x) in voxels of the volume, before; NaN where an object is missing.
    voxel_size : tensor, shape (batch, 3)
        Relative voxel sizes along (z, y, x); only their proportions matter.
    """
    n = len(points)

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * limit

    angles = uniform(1.0, 3) * torch.tensor(config.rotation_degrees_zyx) * math.pi / 180
    scales = (1 + config.scale) ** uniform(1.0)
    flips = torch.ones(n, 3)
    for axis in config.flip_axes:
        coin = torch.rand(n, generator=generator) < 0.5
        flips[:, "zyx".index(axis)] = torch.where(coin, -1.0, 1.0)
    physical = _rotation(angles) * scales[:, None, None] * flips[:, None, :]
    size = voxel_size.cpu().float()
    matrix = physical * size[:, None, :] / size[:, :, None]
    extent = torch.tensor(shape_zyx, dtype=torch.float32)
    shift = uniform(config.shift, 3) * extent
    shift = _keep_inside(points.cpu(), matrix, shift, extent)
    return Augmentation(
        matrix=matrix,
        shift_voxels=shift,
        gain=1 + uniform(config.gain),
        offset=uniform(config.offset),
        gamma=(1 + config.gamma) ** uniform(1.0),
        noise=uniform(config.noise).abs(),
        noise_seeds=torch.randint(2**31, (1,), generator=generator) + torch.arange(n),
    )


def move_points(points: Tensor, change: Augmentation, shape_zyx: tuple[int, int, int]) -> Tensor:
    """Apply the geometric part to points (batch, object, 3) in voxels; missing ones stay NaN."""
    centre = (torch.tensor(shape_zyx, device=points.device) - 1) / 2
    matrix, shift = change.matrix.to(points), change.shift_voxels.to(points)
    return (points - centre) @ matrix.transpose(1, 2) + centre + shift[:, None, :]


def move_images(
    images: Tensor,
    change: Augmentation,
    *,
    shape_zyx: Sequence[int] | None = None,
    pool: int = 1,
    start: Tensor | None = None,
    size_zyx: Sequence[int] | None = None,
) -> Tensor:
    """Apply the geometric part to images (batch, 1, z, y, x), trilinear, edges repeated.

    Parameters
    ----------
    images : tensor
        Whole volumes, or volumes pooled by `pool` along each axis.
    shape_zyx : three ints, optional
        Voxels of the volume before pooling, where that padded it; by default pool * its shape.
    start, size_zyx : tensor, shape (batch, 3), and three ints, optional
        Make only this part of the result, in unpooled voxels; by default all of it.
    """
    source = images.new_tensor(images.shape[2:]) * pool
    whole = source if shape_zyx is None else images.new_tensor(shape_zyx)
    part = source if size_zyx is None else images.new_tensor(size_zyx)
    shape = list(images.shape[2:]) if size_zyx is None else list(size_zyx)
    first = images.new_zeros(len(images), 3) if start is None else start.to(images)
    inverse, shift = torch.linalg.inv(change.matrix).to(images), change.shift_voxels.to(images)
    # grid_sample asks where each voxel comes from, in (x, y, z) units of half the source; changes
    # count from the middle of the whole volume
    back = inverse * (part / 2)[None, None, :] / (source / 2)[None, :, None]
    middle = first + part / 2 - whole / 2 - shift
    offset = (inverse @ middle[..., None] + whole[:, None] / 2) / (source / 2)[:, None] - 1
    theta = torch.cat([back.flip(1, 2), offset.flip(1)], dim=2)
    grid = F.affine_grid(theta, [len(images), 1, *shape], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def change_intensities(images: Tensor, change: Augmentation) -> Tensor:
    """Apply the intensity part: gamma on the grey range 0...1, gain, offset, Gaussian noise."""

    def each(values: Tensor) -> Tensor:
        return values.to(images)[:, None, None, None, None]

    low = images.clamp_min(0)
    images = images - low + low ** each(change.gamma)  # negative values keep their place
    images = images * each(change.gain) + each(change.offset)
    generator = torch.Generator(images.device)
    # one seed a scan: its noise doesn't depend on which others share the batch
    noise = torch.stack(
        [
            torch.randn(
                image.shape, generator=generator.manual_seed(int(seed)), device=images.device
            )
            for image, seed in zip(images, change.noise_seeds, strict=True)
        ]
    )
    return images + noise * each(change.noise)


def augment(images: Tensor, points: Tensor, change: Augmentation) -> tuple[Tensor, Tensor]:
    """Apply a drawn change to images (batch, 1, z, y, x) and points (batch, object, 3)."""
    z, y, x = images.shape[2:]
    moved = change_intensities(move_images(images, change), change)
    return moved, move_points(points, change, (z, y, x))


def _rotation(angles: Tensor) -> Tensor:
    """Rotation matrices (batch, 3, 3) in (z, y, x) order: about z, then y, then x."""
    about_z, about_y, about_x = angles.unbind(-1)
    rotation = torch.eye(3).repeat(len(angles), 1, 1)
    for angle, (a, b) in ((about_z, (1, 2)), (about_y, (0, 2)), (about_x, (0, 1))):
        turn = torch.eye(3).repeat(len(angles), 1, 1)
        turn[:, a, a] = turn[:, b, b] = angle.cos()
        turn[:, a, b], turn[:, b, a] = -angle.sin(), angle.sin()
        rotation = turn @ rotation
    return rotation


def _keep_inside(points: Tensor, matrix: Tensor, shift: Tensor, extent: Tensor) -> Tensor:
    """Limit the shift so that the points' bounding box stays inside, if it fits at all."""
    offsets = (points.float() - (extent - 1) / 2) @ matrix.transpose(1, 2)
    half = extent / 2  # to the volume's faces, half a voxel beyond the last centres
    least, most = offsets.nan_to_num(math.inf).amin(1), offsets.nan_to_num(-math.inf).amax(1)
    lowest, highest = -half - least, half - most  # missing points limit nothing
    middle = (lowest + highest) / 2
    fits = lowest <= highest
    limited = torch.minimum(torch.maximum(shift, lowest), highest)
    return torch.where(fits, limited, middle)
