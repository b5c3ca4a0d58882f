"""The network: a strided U-Net (the default, one a stage) or the lab's attention U-Net.

Both map images (batch, 1, z, y, x) of any size to heatmap logits (batch, object, z, y, x) on a
grid that is `stride` times coarser; with mask supervision, the U-Net's masks follow as further
channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jawloc.training.stages import NetworkConfig, Stage, heatmap_shape

# The lab's network; its state dicts load only into exactly this.
LAB_CHANNELS = (8, 12, 16, 24, 32)
LAB_STRIDES = (2, 2, 2, 2, 1)


def build_network(config: NetworkConfig, n_objects: int) -> nn.Module:
    """Return the network with fresh weights, drawn from torch's current random state."""
    if config.name == "attention-unet":
        return LabNetwork(n_objects)
    parts = [UNet(config, stage, n_objects) for stage in config.stages()]
    return parts[0] if len(parts) == 1 else CoarseToFine(parts)


class CoarseToFine(nn.Module):
    """The networks of several stages; coarse_to_fine.py has their forward pass."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)


class UNet(nn.Module):
    """A U-Net whose stem is strided, so that no layer works at full resolution.

    InstanceNorm, unlike BatchNorm, has no running statistics that differ between training and use.
    U-Net: Ronneberger et al. 2015, arXiv 1505.04597.

    Attributes
    ----------
    mask_share : tensor, shape (object,)
        With mask supervision: the weight of the mask's centroid in the position, from 0 to 1. It
        is 0 while training, and chosen afterwards.
    """

    mask_share: Tensor | None

    def __init__(self, config: NetworkConfig, stage: Stage, n_objects: int) -> None:
        super().__init__()
        channels, stride = config.channels, stage.stride
        self.stride = stride
        self.total_stride = stride * 2 ** (len(channels) - 1)
        self.stem = _stem(channels[0], stride)
        self.down = nn.ModuleList(
            _block(a, b, stride=1 if level == 0 else 2)
            for level, (a, b) in enumerate(zip((channels[0], *channels), channels, strict=False))
        )
        pairs = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.add = config.skip_connections == "add"
        if self.add:
            self.narrow = nn.ModuleList(nn.Conv3d(deep, skip, 1) for deep, skip in pairs)
        self.up = nn.ModuleList(
            _block(skip if self.add else deep + skip, skip, stride=1) for deep, skip in pairs
        )
        self.register_buffer("mask_share", torch.zeros(n_objects) if stage.masks else None)
        self.head = nn.Conv3d(channels[0], n_objects * (2 if stage.masks else 1), 1)
        if self.add:  # a third faster to get the gradients of weights with channels last
            nn.Module.to(self, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Map images (batch, 1, z, y, x) to logits (batch, object, *heatmap_shape).

        With mask supervision, those of the masks follow, as further channels.
        """
        z, y, x = heatmap_shape(image.shape[2:], self.stride)
        image = pad_to_multiple(image, self.total_stride)
        if self.add:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        features = self.stem(image)
        skips = []
        for block in self.down:
            features = block(features)
            skips.append(features)
        for level, (block, skip) in enumerate(zip(self.up, skips[-2::-1], strict=True)):
            if self.add:  # narrowed before they are enlarged, which is 8 times cheaper
                features = F.interpolate(
                    self.narrow[level](features), scale_factor=2, mode="trilinear"
                )
                features = block(features + skip)
            else:
                features = F.interpolate(features, scale_factor=2, mode="nearest")
                features = block(torch.cat([features, skip], dim=1))
        with torch.autocast(image.device.type, enabled=False):  # the position is read from these
            return self.head(features.float()).contiguous()[:, :, :z, :y, :x]


def _stem(channels: int, stride: int) -> nn.Module:
    """Halve the resolution step by step: fine detail passes a convolution before it is averaged.

    Kernel 4 with padding 1 is centred on the 2 x 2 x 2 block that it replaces.
    """
    if stride == 1:
        return nn.Sequential(nn.Conv3d(1, channels, 3, padding=1, bias=False), _norm(channels))
    steps = [max(1, channels // 2), channels] if stride == 4 else [channels]
    layers: list[nn.Module] = []
    for n_in, n_out in zip([1, *steps], steps, strict=False):
        layers += [nn.Conv3d(n_in, n_out, 4, 2, padding=1, bias=False), _norm(n_out)]
    return nn.Sequential(*layers)


def _block(n_in: int, n_out: int, stride: int) -> nn.Module:
    first = nn.Conv3d(n_in, n_out, 3, stride, padding=1, bias=False)
    second = nn.Conv3d(n_out, n_out, 3, padding=1, bias=False)
    return nn.Sequential(first, _norm(n_out), second, _norm(n_out))


def _norm(channels: int) -> nn.Module:
    return nn.Sequential(InstanceNorm(channels, affine=True), nn.LeakyReLU(0.01, inplace=True))


class InstanceNorm(nn.InstanceNorm3d):
    """PyTorch's instance norm; predicting on CPUs, without copies of features with channels last.

    Ulyanov et al. 2016, arXiv 1607.08022.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Normalise each channel of each volume, (batch, channel, z, y, x)."""
        last = features.is_contiguous(memory_format=torch.channels_last_3d)
        cpu, single = features.device.type == "cpu", features[0, 0].numel() == 1
        if torch.is_grad_enabled() or single or not (cpu and last):
            return super().forward(features)
        # PyTorch puts channels first for it, and the next convolution puts them last again: a
        # fifth of a prediction. Its group norm and batch norm don't, but sum in an order that is
        # wrong by 1 % in a scan that is mostly of one grey value. Gradients would eat up the gain.
        centred = features - features.mean((2, 3, 4), keepdim=True)
        variance = centred.square().mean((2, 3, 4), keepdim=True)
        weight, bias = (p.view(1, -1, 1, 1, 1) for p in (self.weight, self.bias))
        return torch.addcmul(bias, centred, weight * torch.rsqrt(variance + self.eps))


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Repeat the last voxel of each axis until the size is divisible by `multiple`.

    An image within one multiple is padded to two along x: norms need two voxels at the deepest
    level.
    """
    z, y, x = ((-n) % multiple for n in image.shape[2:])
    if max(image.shape[2:]) <= multiple:
        x += multiple
    if z == y == x == 0:
        return image
    return F.pad(image, (0, x, 0, y, 0, z), mode="replicate")


class LabNetwork(nn.Module):
    """The lab's attention U-Net, for images of any size.

    Its state dict is that of MONAI's network, so that the lab's bare `.pth` files load.
    """

    def __init__(self, n_objects: int) -> None:
        # kept out of the module's imports: MONAI takes seconds, and only this network needs it
        from monai.networks.nets import AttentionUnet

        super().__init__()
        self.inner = AttentionUnet(
            spatial_dims=3,
            in_channels=1,
            out_channels=n_objects,
            channels=LAB_CHANNELS,
            strides=LAB_STRIDES,
            kernel_size=5,
            dropout=0.15,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map images (batch, 1, z, y, x) to logits (batch, object, z, y, x)."""
        z, y, x = image.shape[2:]
        return self.inner(pad_to_multiple(image, math.prod(LAB_STRIDES)))[:, :, :z, :y, :x]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return MONAI's state dict."""
        return self.inner.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load MONAI's state dict."""
        return self.inner.load_state_dict(*args, **kwargs)
