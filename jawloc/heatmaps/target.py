"""Points -> Gaussian heatmaps, rendered analytically (the inverse of decode.py).

A Gaussian is the product of three 1-D factors, so that a target is three short vectors and is
made dense only where somebody wants to see it. Each factor is normalised on its axis: the
heatmap sums to one, and near a border the peak stays where the point is (filtering a delta with
reflecting borders, the usual way, moves it).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Factors = tuple[Tensor, Tensor, Tensor]


def are_present(points: Tensor) -> Tensor:
    """Say which objects a scan shows, shape (batch, object): the point of a missing one is NaN."""
    return ~points.isnan().any(-1)


def with_stand_ins(points: Tensor) -> Tensor:
    """Return points (batch, object, 3) with each missing one amid the others of its scan.

    It gives what is computed of every object something finite to work on; nothing that comes of a
    stand-in may count, a gradient neither, which a NaN would spoil even where it is masked.
    """
    others = points.nanmean(dim=1, keepdim=True).nan_to_num()
    return torch.where(are_present(points)[..., None], points, others)


def gaussian_factors(points: Tensor, shape_zyx: Sequence[int], sigma_voxels: float) -> Factors:
    """Return the three 1-D factors of each point's Gaussian.

    Parameters
    ----------
    points : tensor, shape (batch, object, 3)
        (z, y, x) in voxels of the heatmap's own grid; may lie outside of it.
    shape_zyx : three ints
        The heatmap's shape.
    sigma_voxels : float
        Standard deviation in voxels of the heatmap's own grid.

    Returns
    -------
    three tensors, shapes (batch, object, z), (batch, object, y), (batch, object, x), each summing
    to one over its last axis.
    """
    z, y, x = (
        torch.softmax(_log_gaussian(points[..., axis], size, sigma_voxels), dim=-1)
        for axis, size in enumerate(shape_zyx)
    )
    return z, y, x


def rendered_spread(points: Tensor, shape_zyx: Sequence[int], sigma_voxels: float) -> Tensor:
    """Return the spread, as decode.py defines it, of each point's own heatmap.

    That is sigma, but for borders, and for a sigma so far below a voxel that the voxels' distances
    from the point count more.

    Parameters
    ----------
    points, shape_zyx, sigma_voxels : as in `gaussian_factors`

    Returns
    -------
    tensor, shape (batch, object), voxels of the heatmap's own grid
    """
    variance = torch.zeros(points.shape[:-1], device=points.device)
    for axis, factor in enumerate(gaussian_factors(points, shape_zyx, sigma_voxels)):
        index = torch.arange(factor.shape[-1], device=points.device, dtype=points.dtype)
        variance += (factor * (index - points[..., axis, None]).square()).sum(-1) / 3
    return variance.sqrt()


def render(points: Tensor, shape_zyx: Sequence[int], sigma_voxels: float) -> Tensor:
    """Return dense heatmaps, shape (batch, object, z, y, x), each summing to one."""
    z, y, x = gaussian_factors(points, shape_zyx, sigma_voxels)
    return z[..., :, None, None] * y[..., None, :, None] * x[..., None, None, :]


def _log_gaussian(centre: Tensor, size: int, sigma_voxels: float) -> Tensor:
    index = torch.arange(size, device=centre.device, dtype=centre.dtype)
    return -0.5 * ((index - centre[..., None]) / sigma_voxels) ** 2
