"""Points -> Gaussian heatmaps, rendered analytically (the inverse of decode.py).

A Gaussian is the product of three 1-D factors, so a target is kept as three short vectors and made
dense for pictures only. Each factor is normalised on its axis: the heatmap sums to one, and near a
border the peak stays at the point (filtering a delta with reflecting borders moves it).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Factors = tuple[Tensor, Tensor, Tensor]


def are_present(points: Tensor) -> Tensor:
    """Return which objects a scan shows, shape (batch, object); a missing one's point is NaN."""
    return ~points.isnan().any(-1)


def with_stand_ins(points: Tensor) -> Tensor:
    """Return points (batch, object, 3) with each missing one at the mean of its scan's others.

    So everything computed from them is finite, gradients included (a NaN would spoil those even
    where it is masked); results for missing objects must be left out afterwards.
    """
    others = points.nanmean(dim=1, keepdim=True).nan_to_num()
    return torch.where(are_present(points)[..., None], points, others)


def gaussian_factors(points: Tensor, shape_zyx: Sequence[int], sigma_voxels: float) -> Factors:
    """Return the 1-D factors of Gaussians along z, y and x, each of shape (batch, object, size).

    Each factor sums to one over its last axis. The points (batch, object, 3), which may lie outside
    the heatmap, and sigma, the standard deviation, are in voxels of the heatmap's own grid.
    """
    factors = []
    for axis, size in enumerate(shape_zyx):
        index = torch.arange(size, device=points.device, dtype=points.dtype)
        exponent = -0.5 * ((index - points[..., axis, None]) / sigma_voxels) ** 2
        factors.append(torch.softmax(exponent, dim=-1))
    z, y, x = factors
    return z, y, x


def rendered_spread(points: Tensor, shape_zyx: Sequence[int], sigma_voxels: float) -> Tensor:
    """Return the spread (batch, object), as in `Decoded`, of the heatmap of each point.

    It differs from sigma near borders, and where sigma is far below a voxel. Parameters as in
    `gaussian_factors`.
    """
    variance = torch.zeros(points.shape[:-1], device=points.device)
    for axis, factor in enumerate(gaussian_factors(points, shape_zyx, sigma_voxels)):
        index = torch.arange(factor.shape[-1], device=points.device, dtype=points.dtype)
        variance += (factor * (index - points[..., axis, None]).square()).sum(-1) / 3
    return variance.sqrt()


def render(points: Tensor, shape_zyx: Sequence[int], sigma_voxels: float) -> Tensor:
    """Return dense heatmaps, shape (batch, object, z, y, x), each summing to one."""
    return outer(gaussian_factors(points, shape_zyx, sigma_voxels))


def outer(factors: Factors) -> Tensor:
    """Return the product of factors along z, y and x, shape (batch, object, z, y, x)."""
    z, y, x = factors
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]
