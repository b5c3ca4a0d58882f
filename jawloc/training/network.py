"""The networks: a fast strided U-Net (the default) and the lab's attention U-Net.

Both take images (batch, 1, z, y, x) of any size and give heatmap logits (batch, object, ...) on
a grid that is `stride` times coarser: heatmap voxel j covers the image voxels stride * j ...
stride * j + stride - 1. The decoded point loses nothing by it: see decode.py. Large grids are
looked at by two U-Nets, one coarsely and one closely: see looks.py.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from jawloc.errors import InputError
from jawloc.geometry import Shape

NetworkName = Literal["unet", "attention-unet"]
WindowSize = Annotated[int, Field(ge=16)]

# The lab's network; its state dicts load only into exactly this.
LAB_CHANNELS = (8, 12, 16, 24, 32)
LAB_STRIDES = (2, 2, 2, 2, 1)

# A first, coarse look keeps this many voxels along the shortest axis.
LEAST_POOLED_SIZE = 24
# Heatmap voxels along each axis of a close look's window.
WINDOW_SIZE = 16


@dataclass(frozen=True)
class NetworkConfig:
    """Which network, and how wide.

    `channels` (one number a level), `stride` (of the heatmap), `coarse` and `window` are the
    U-Net's; the attention U-Net is always the lab's, with a heatmap as fine as its input. What is
    "auto" is decided by the grid, see `for_grid`; everything else wants it decided.
    """

    name: NetworkName = "unet"
    channels: tuple[Annotated[int, Field(ge=1)], ...] = (16, 32, 64, 128)
    stride: Literal["auto", 1, 2, 4] = "auto"
    # Image voxels that a first, coarse look averages into one along each axis; 1: no such look.
    coarse: Literal["auto", 1, 2, 4, 8] = "auto"
    # (z, y, x) image voxels of the close look round the place that the coarse one names
    window: Literal["auto"] | tuple[WindowSize, WindowSize, WindowSize] = "auto"

    @property
    def heatmap_stride(self) -> int:
        """Image voxels per voxel of the heatmap that the position is read from.

        Raises
        ------
        ValueError
            It isn't decided yet: see `for_grid`.
        """
        if self.name != "unet":
            return 1
        if self.stride == "auto":
            raise ValueError("network.stride depends on the grid; call for_grid() first")
        return self.stride

    def for_grid(self, shape_zyx: Sequence[int]) -> NetworkConfig:
        """Return the configuration with all that is "auto" decided for this downsampled size.

        Fine grids get longer heatmap voxels: what matters is how many there are across the jaw.
        """
        factor: Literal[1, 2, 4, 8] = 1
        for larger in (2, 4, 8):
            if min(shape_zyx) >= larger * LEAST_POOLED_SIZE:
                factor = larger
        coarse, stride, window = self.coarse, self.stride, self.window
        if coarse == "auto":
            coarse = factor if self.name == "unet" else 1
        if stride == "auto":
            stride = 2 if factor <= 2 else 4
        if window == "auto":
            window = (WINDOW_SIZE * stride,) * 3
        return replace(self, coarse=coarse, stride=stride, window=window)

    def stages(self) -> tuple[Stage, ...]:
        """Return how the network looks at a scan, in order; the last gives the position.

        Raises
        ------
        ValueError
            Something isn't decided yet: see `for_grid`.
        """
        stride = self.heatmap_stride
        if self.name != "unet" or self.coarse == 1:
            return (Stage(stride),)
        if self.coarse == "auto" or self.window == "auto":
            raise ValueError("how a network looks depends on the grid; call for_grid() first")
        return (
            Stage(stride, pool=self.coarse, name="coarse"),
            Stage(stride, window=self.window, name="fine"),
        )


@dataclass(frozen=True)
class Stage:
    """How one network, a stage of a whole one, looks at a scan; lengths in image voxels."""

    stride: int  # input voxels per heatmap voxel
    pool: int = 1  # image voxels averaged into one input voxel along each axis
    window: Shape | None = None  # what is looked at, round a point; None: the whole scan
    name: str = ""  # of the stage: "coarse" or "fine"; of the only one, none

    @property
    def heatmap_stride(self) -> int:
        """Image voxels per heatmap voxel along each axis."""
        return self.pool * self.stride


def heatmap_shape(shape_zyx: Sequence[int], stride: int) -> tuple[int, int, int]:
    """Return the shape of the heatmap for an image of this shape."""
    z, y, x = (math.ceil(n / stride) for n in shape_zyx)
    return z, y, x


def to_heatmap_grid(points: Tensor, stride: int) -> Tensor:
    """Carry points from image voxels to heatmap voxels."""
    return (points + 0.5) / stride - 0.5


def to_image_grid(points: Tensor, stride: int) -> Tensor:
    """Carry points from heatmap voxels to image voxels."""
    return (points + 0.5) * stride - 0.5


def build_network(config: NetworkConfig, n_objects: int) -> nn.Module:
    """Make the network with fresh weights (from torch's current random state)."""
    if config.name == "attention-unet":
        return _lab_network(n_objects)
    parts = [UNet(config.channels, stage.stride, n_objects) for stage in config.stages()]
    return parts[0] if len(parts) == 1 else CoarseToFine(parts)


class CoarseToFine(nn.Module):
    """The networks of several looks, trained and kept as one; looks.py says what each sees."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)


class UNet(nn.Module):
    """A plain U-Net whose stem already strides, so that no layer works at full resolution.

    InstanceNorm keeps small batches and single scans alike (no running statistics that differ
    between training and use). U-Net: Ronneberger et al. 2015, arXiv 1505.04597.
    """

    def __init__(self, channels: Sequence[int], stride: int, n_objects: int) -> None:
        super().__init__()
        self.stride = stride
        self.total_stride = stride * 2 ** (len(channels) - 1)
        self.stem = _stem(channels[0], stride)
        self.down = nn.ModuleList(
            _block(a, b, stride=1 if level == 0 else 2)
            for level, (a, b) in enumerate(zip((channels[0], *channels), channels, strict=False))
        )
        self.up = nn.ModuleList(
            _block(deep + skip, skip, stride=1)
            for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Conv3d(channels[0], n_objects, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (batch, 1, z, y, x) to logits (batch, object, *heatmap_shape)."""
        shape = heatmap_shape(image.shape[2:], self.stride)
        x = self.stem(pad_to_multiple(image, self.total_stride))
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, skip], dim=1))
        with torch.autocast(x.device.type, enabled=False):  # positions are read from these numbers
            return self.head(x.float())[:, :, : shape[0], : shape[1], : shape[2]]


def _stem(channels: int, stride: int) -> nn.Module:
    """Halve the resolution step by step, so that fine detail is seen before it is averaged away.

    Kernel 4 with padding 1 is centred on the 2 x 2 x 2 block that it replaces.
    """
    if stride == 1:
        return nn.Sequential(nn.Conv3d(1, channels, 3, padding=1, bias=False), _norm(channels))
    steps = [max(1, channels // 2), channels] if stride == 4 else [channels]
    layers: list[nn.Module] = []
    for n_in, n_out in zip([1, *steps], steps, strict=False):
        layers += [nn.Conv3d(n_in, n_out, 4, 2, padding=1, bias=False), _norm(n_out)]
    return nn.Sequential(*layers)


def _norm(channels: int) -> nn.Module:
    return nn.Sequential(nn.InstanceNorm3d(channels, affine=True), nn.LeakyReLU(0.01, inplace=True))


def _block(n_in: int, n_out: int, stride: int) -> nn.Module:
    first = nn.Conv3d(n_in, n_out, 3, stride, padding=1, bias=False)
    second = nn.Conv3d(n_out, n_out, 3, padding=1, bias=False)
    return nn.Sequential(first, _norm(n_out), second, _norm(n_out))


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeat the last voxel of each axis until the size divides by `multiple`.

    An image within one multiple is made two long: norms need two voxels at the deepest level.
    """
    missing = [(-n) % multiple for n in image.shape[2:]]
    if max(image.shape[2:]) <= multiple:
        missing[2] += multiple
    if not any(missing):
        return image
    z, y, x = missing
    return F.pad(image, (0, x, 0, y, 0, z), mode="replicate")


class _AnySize(nn.Module):
    """Lets a network that needs sizes divisible by `multiple` take any size.

    Its state dict is the inner network's own, so that the lab's bare `.pth` files load.
    """

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.inner = network
        self.multiple = multiple

    def forward(self, image: Tensor) -> Tensor:
        z, y, x = image.shape[2:]
        return self.inner(pad_to_multiple(image, self.multiple))[:, :, :z, :y, :x]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the inner network's state dict."""
        return self.inner.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the inner network's state dict."""
        return self.inner.load_state_dict(*args, **kwargs)


def _lab_network(n_objects: int) -> nn.Module:
    # kept out of the module's imports: MONAI takes seconds, and only this network needs it
    from monai.networks.nets import AttentionUnet

    network = AttentionUnet(
        spatial_dims=3,
        in_channels=1,
        out_channels=n_objects,
        channels=LAB_CHANNELS,
        strides=LAB_STRIDES,
        kernel_size=5,
        dropout=0.15,
    )
    return _AnySize(network, math.prod(LAB_STRIDES))


def choose_device(name: str) -> torch.device:
    """Turn the setting into a device: `auto`, `cpu`, `cuda`, `cuda:1`, ...

    A GPU that isn't there is replaced by the CPU with a warning: slower, but the same numbers.

    Raises
    ------
    InputError
        A name that isn't one of these.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device: must be auto, cpu, cuda or cuda:N; received {name!r}")
    present = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= present:
        warnings.warn(
            f"device {name!r} is set, but this machine has {present or 'no'} CUDA GPUs: "
            "using the CPU",
            stacklevel=2,
        )
        return torch.device("cpu")
    return device
