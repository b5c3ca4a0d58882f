"""Heatmap logits -> points and spread (the inverse of target.py).

The softmax of the logits is a probability map. Its mean is biased in two ways: a border cuts off
one flank of a Gaussian, and probability far away pulls the mean towards it. So the point is fitted
by matching moments inside a window round the peak: it is the centre of the Gaussian that, cut off
by the same window and borders, has the map's mean. Of all Gaussians of this sigma, that one has the
least KL divergence from the map in the window, and a rendered target decodes to its own point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW_SIGMAS = 3.0  # half-width of the window; 99.7 % of a Gaussian lies inside on each axis
NEWTON_STEPS = 12  # 8 converge to float32 on any map that was tried, flat ones included


@dataclass(frozen=True)
class Decoded:
    """Positions read from heatmaps, in voxels of the heatmap's own grid.

    The spread is the root mean square distance per axis of the whole probability map from the
    point: sigma for a rendered target away from borders, very large for a flat map.
    """

    points: Tensor  # (batch, object, 3)
    spread: Tensor  # (batch, object)


def decode(logits: Tensor, sigma_voxels: float) -> Decoded:
    """Find the point of each heatmap from logits (batch, object, z, y, x).

    The sigma is that which the network was trained for, in voxels of the heatmap's own grid.
    """
    logits = logits.detach().float()
    probability = torch.softmax(logits.flatten(2), dim=-1).view_as(logits)
    peak = _peak(probability)
    radius = math.ceil(WINDOW_SIGMAS * sigma_voxels) + 1
    indices = [torch.arange(size, device=peak.device) for size in logits.shape[2:]]
    windows = [
        ((index - peak[..., axis, None]).abs() <= radius).float()  # (batch, object, size)
        for axis, index in enumerate(indices)
    ]
    marginals = [_marginal(probability, windows, a) * w for a, w in enumerate(windows)]
    offsets = _fit(_stack_axes(marginals), _stack_axes(windows), peak, sigma_voxels)
    # a point belongs inside the volume, which spans -0.5 ... size - 0.5
    highest = torch.tensor(logits.shape[2:], device=peak.device) - 0.5
    points = torch.minimum((offsets + peak).clamp_min(-0.5), highest)
    return Decoded(points, _spread(probability, points))


def _peak(probability: Tensor) -> Tensor:
    """Return the index (batch, object, 3) of the likeliest 3x3x3 block, not of a single voxel."""
    padded = F.pad(probability, (1,) * 6)  # by hand: avg_pool3d refuses sides below its kernel
    smooth = F.avg_pool3d(padded, 3, stride=1)
    flat = smooth.flatten(2).argmax(dim=-1)
    _, ny, nx = probability.shape[2:]
    return torch.stack([flat // (ny * nx), flat // nx % ny, flat % nx], dim=-1)


def _marginal(probability: Tensor, windows: list[Tensor], axis: int) -> Tensor:
    """Sum the map over the other two axes inside their windows: (batch, object, size)."""
    wz, wy, wx = windows
    if axis == 2:
        in_zy = torch.einsum("bozyx,boy->bozx", probability, wy)
        return torch.einsum("bozx,boz->box", in_zy, wz)
    over_x = torch.einsum("bozyx,box->bozy", probability, wx)
    if axis == 1:
        return torch.einsum("bozy,boz->boy", over_x, wz)
    return torch.einsum("bozy,boy->boz", over_x, wy)


def _stack_axes(axes: list[Tensor]) -> Tensor:
    """Stack the axes' vectors (batch, object, size) to (batch, object, axis, longest size)."""
    longest = max(vector.shape[-1] for vector in axes)
    return torch.stack([F.pad(v, (0, longest - v.shape[-1])) for v in axes], dim=2)


def _fit(marginals: Tensor, windows: Tensor, peak: Tensor, sigma_voxels: float) -> Tensor:
    """Find the centre of the cut-off Gaussian whose mean is the marginal's, by Newton's method.

    The mean's derivative with respect to the centre is variance / sigma**2. Coordinates are
    relative to the peak, which keeps float32 exact enough for any size.
    """
    index = torch.arange(marginals.shape[-1], device=peak.device) - peak[..., None].float()
    mean = (marginals * index).sum(-1) / marginals.sum(-1)
    outside = (1 - windows) * -1e9
    centre = mean
    for _ in range(NEWTON_STEPS):
        exponent = -0.5 * ((index - centre[..., None]) / sigma_voxels) ** 2
        model = torch.softmax(exponent + outside, dim=-1)
        model_mean = (model * index).sum(-1)
        variance = (model * (index - model_mean[..., None]) ** 2).sum(-1)
        step = (mean - model_mean) * sigma_voxels**2 / variance.clamp_min(1e-6)
        centre = centre + step.clamp(-sigma_voxels, sigma_voxels)
    return centre


def _spread(probability: Tensor, points: Tensor) -> Tensor:
    variance = torch.zeros_like(points[..., 0])
    for axis, size in enumerate(probability.shape[2:]):
        others = [a + 2 for a in range(3) if a != axis]
        index = torch.arange(size, device=points.device)
        square = (index - points[..., axis, None]) ** 2
        variance = variance + (probability.sum(others) * square).sum(-1)
    return (variance / 3).sqrt()
