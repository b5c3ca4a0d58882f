"""Which networks locate the objects, coarse to fine, and the grids of their heatmaps.

Heatmap voxel j covers the image voxels stride * j ... stride * j + stride - 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from jawloc.geometry import Shape
from jawloc.heatmaps.target import Factors

LEAST_WINDOW = 16
WindowSize = Annotated[int, Field(ge=LEAST_WINDOW)]

LEAST_POOLED_SIZE = 24  # voxels that pooling leaves along the shortest axis
ONE_STAGE_VOXELS = 2**18  # of a grid up to which one stage sees all of it: 96 x 48 x 48, 64^3
FINEST_HEATMAP_VOXELS = 2**16  # of a grid up to which its heatmaps are as fine: 40^3
# Along each axis of the fine stage's window: averaged voxels of the coarse stage, or heatmap voxels
# where those are longer.
WINDOW_SIZE = 16


@dataclass(frozen=True)
class Stage:
    """One network's input and heatmap; lengths in image voxels."""

    stride: int  # input voxels per heatmap voxel
    pool: int = 1  # image voxels averaged into one input voxel along each axis
    window: Shape | None = None  # the part of the image that is its input; None: the whole image
    name: str = ""  # "coarse" or "fine"; empty for the only stage
    masks: bool = False  # whether it predicts masks besides heatmaps

    @property
    def heatmap_stride(self) -> int:
        """Image voxels per heatmap voxel along each axis."""
        return self.pool * self.stride


@dataclass(frozen=True)
class NetworkConfig:
    """Which network, and how wide; `for_grid` replaces every "auto".

    All settings but the name are the U-Net's; the attention U-Net is always the lab's, one stage
    with a heatmap as fine as its input.
    """

    name: Literal["unet", "attention-unet"] = "unet"  # `attention-unet`: the lab's
    channels: tuple[Annotated[int, Field(ge=1)], ...] = (16, 32, 64, 96)  # width of each level
    # Image voxels per heatmap voxel (with two stages, of the fine one). `auto`: 4 if the shortest
    # axis has at least 192 voxels, 1 with one stage on at most 65,536 voxels (40×40×40), else 2.
    stride: Literal["auto", 1, 2, 4] = "auto"
    # Image voxels that the coarse stage averages into one along each axis; 1: one stage only.
    # `auto`: 1 on at most 262,144 voxels (96×48×48, 64×64×64); on larger grids, as many as leave 24
    # averaged voxels along the shortest axis.
    coarse: Literal["auto", 1, 2, 4, 8] = "auto"
    # Averaged voxels per heatmap voxel of the coarse stage. `auto`: as many as were averaged, at
    # most 4 and at least `network.stride`.
    coarse_stride: Literal["auto", 1, 2, 4] = "auto"
    # (z, y, x) of the fine stage's window round the coarse stage's point, in downsampled voxels.
    # `auto`: 16 averaged voxels of the coarse stage along each axis, 64 at 512×128×128.
    window: Literal["auto"] | tuple[WindowSize, WindowSize, WindowSize] = "auto"
    # How the decoder joins its features with the encoder's; `add` takes little more than half the
    # time.
    skip_connections: Literal["concatenate", "add"] = "add"
    # Whether the network also learns the objects' masks, whose centroids then share in the
    # position; `auto`: with `unet`.
    mask_supervision: Literal["auto"] | bool = "auto"

    @property
    def heatmap_stride(self) -> int:
        """Image voxels per voxel of the last heatmap; ValueError if that is still "auto"."""
        if self.name != "unet":
            return 1
        if self.stride == "auto":
            raise ValueError("network.stride depends on the grid; call for_grid() first")
        return self.stride

    def for_grid(self, shape_zyx: Sequence[int]) -> NetworkConfig:
        """Return the configuration with every "auto" replaced for this downsampled size.

        One stage is the more accurate wherever it takes no longer than a training may (see the log
        of experiments), and so are heatmaps as fine as a tiny grid. Fine grids get longer heatmap
        voxels: what matters is how many there are across the jaw.
        """
        factor: Literal[1, 2, 4, 8] = 1
        for larger in (2, 4, 8):
            if min(shape_zyx) >= larger * LEAST_POOLED_SIZE:
                factor = larger
        voxels = math.prod(shape_zyx)
        coarse, stride, window = self.coarse, self.stride, self.window
        masks = self.mask_supervision
        if coarse == "auto":
            coarse = 1 if self.name != "unet" or voxels <= ONE_STAGE_VOXELS else factor
        if stride == "auto":
            tiny = coarse == 1 and voxels <= FINEST_HEATMAP_VOXELS
            stride = 1 if tiny else 2 if factor <= 4 else 4
        if window == "auto":
            window = _window(WINDOW_SIZE * max(coarse, stride), stride, shape_zyx)
        if masks == "auto":
            masks = self.name == "unet"
        return replace(
            self,
            coarse=coarse,
            coarse_stride=self._coarse_stride(coarse, stride),
            stride=stride,
            window=window,
            mask_supervision=masks,
        )

    def _coarse_stride(self, coarse: int, stride: int) -> Literal[1, 2, 4]:
        """Return the coarse stage's stride, a long one: it only places the window."""
        if self.coarse_stride != "auto":
            return self.coarse_stride
        longest = 4 if coarse == 1 else max(coarse, stride)  # without that stage it has no effect
        return 4 if longest >= 4 else 2 if longest == 2 else 1

    def stages(self) -> tuple[Stage, ...]:
        """Return the stages in order, the last gives the position; ValueError if one is "auto"."""
        stride, masks = self.heatmap_stride, self.mask_supervision is True
        if self.name != "unet" or self.coarse == 1:
            return (Stage(stride, masks=masks),)
        if self.coarse == "auto" or self.window == "auto":
            raise ValueError("the stages depend on the grid; call for_grid() first")
        return (
            Stage(self._coarse_stride(self.coarse, stride), pool=self.coarse, name="coarse"),
            Stage(stride, window=self.window, name="fine", masks=masks),
        )


def _window(longest: int, stride: int, shape_zyx: Sequence[int]) -> Shape:
    """Return a window of this length, but along each axis hardly longer than the grid."""
    z, y, x = (min(longest, max(LEAST_WINDOW, -(-n // stride) * stride)) for n in shape_zyx)
    return z, y, x


def heatmap_shape(shape_zyx: Sequence[int], stride: int) -> Shape:
    """Return the shape of the heatmap for an image of this shape."""
    z, y, x = (math.ceil(n / stride) for n in shape_zyx)
    return z, y, x


def to_heatmap_grid(points: Tensor, stride: int) -> Tensor:
    """Convert points from image voxels to heatmap voxels."""
    return (points + 0.5) / stride - 0.5


def to_image_grid(points: Tensor, stride: int) -> Tensor:
    """Convert points from heatmap voxels to image voxels."""
    return (points + 0.5) * stride - 0.5


def shares_inside(
    start: Tensor, size_zyx: Sequence[int], stride: int, shape_zyx: Sequence[int]
) -> Factors:
    """Return which share of heatmap voxels lies in the image, along z, y and x.

    Each is of shape (batch, object, n). `start` (batch, object, 3) is the image voxel at which
    `size_zyx` heatmap voxels begin, `shape_zyx` the image's.
    """
    z, y, x = (
        ((whole - first[..., None]) / stride - torch.arange(n, device=start.device)).clamp(0, 1)
        for first, n, whole in zip(start.unbind(-1), size_zyx, shape_zyx, strict=True)
    )
    return z, y, x
