"""Several looks at one image, and what they agree on.

A network that is sure of itself says the same of an image that was moved by a voxel, or turned
over as training turns scans over; so do networks that learned from other scans. Positions are
averaged, and what they differ by counts as spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jawloc.heatmaps.decode import WINDOW_SIGMAS
from jawloc.training.looks import Seen

AXES = "zyx"


@dataclass(frozen=True)
class Variant:
    """What a changed copy of an image is.

    Attributes
    ----------
    shape_zyx : of the image
    shift_voxels : by which everything was moved along each axis, after it was turned over
    turned_axes : out of z, y and x
    """

    shape_zyx: tuple[int, ...]
    shift_voxels: int = 0
    turned_axes: tuple[str, ...] = ()

    def back(self, points: Tensor) -> Tensor:
        """Carry points (..., 3) of the copy to the image that it was made of."""
        points = points - self.shift_voxels
        turned = [axis in self.turned_axes for axis in AXES]
        last = points.new_tensor(self.shape_zyx) - 1
        points = torch.where(torch.tensor(turned, device=points.device), last - points, points)
        return torch.minimum(points.clamp_min(-0.5), last + 0.5)  # what was moved out stays inside


def variants(image: Tensor, turned_axes: Sequence[str]) -> tuple[Tensor, list[Variant]]:
    """Return an image, a copy moved by a voxel along each axis, and one turned over.

    Parameters
    ----------
    image : tensor, shape (1, 1, z, y, x)
    turned_axes : those along which training turns scans over; without any, there is no such copy.

    Returns
    -------
    tensor, shape (variant, 1, z, y, x), and what each of them is
    """
    shape = tuple(image.shape[2:])
    every = [Variant(shape), Variant(shape, shift_voxels=1)]
    if turned_axes:
        every.append(Variant(shape, turned_axes=tuple(turned_axes)))
    # filled in place: a scan's downsampled image is 30 MB, and copying it takes as long as looking
    batch = image.new_empty((len(every), *image.shape[1:]))
    batch[0] = image[0]
    moved = batch[1, 0]
    moved[1:, 1:, 1:] = image[0, 0, :-1, :-1, :-1]
    moved[0], moved[:, 0], moved[:, :, 0] = moved[1], moved[:, 1], moved[:, :, 1]
    if turned_axes:
        batch[2, 0] = torch.flip(image[0, 0], [AXES.index(axis) for axis in turned_axes])
    return batch, every


@dataclass(frozen=True)
class Opinion:
    """What one network says of an image, of all its variants together.

    Attributes
    ----------
    points : array, shape (object, 3), voxels of the downsampled grid
    width : array, shape (object,), in the same unit, per axis
        Root mean square distance of the probability map from the point, which is wide because the
        map is that of a Gaussian, and wider where the network is unsure.
    spread : array, shape (object,), in the same unit, per axis
        By how much the map is wider than the rendered Gaussian, and the copies' points differ.
    elsewhere : array, shape (object,)
        Share of the first look's probability that lies away from the point.
    contrast, close_contrast : array, shape (object,)
        How far the highest logit of the first and of the last look is above their mean, in nats.
    probability : array, shape (object, z, y, x), of the image itself, on the heatmap's own grid
    """

    points: np.ndarray
    width: np.ndarray
    spread: np.ndarray
    elsewhere: np.ndarray
    contrast: np.ndarray
    close_contrast: np.ndarray
    probability: np.ndarray


def opinion(seen: Sequence[Seen], copies: Sequence[Variant], shape_zyx: Sequence[int]) -> Opinion:
    """Bring together what the looks of one network saw of every variant."""
    found = seen[-1].decode().points  # (variant, object, 3)
    points = torch.stack([copy.back(p) for copy, p in zip(copies, found, strict=True)])
    first, (width, spread) = seen[0], _spreads(seen, points)
    return Opinion(
        points=_array(points.mean(dim=0)),
        width=_array(width),
        spread=_array(spread),
        elsewhere=_array(_elsewhere(first, found).mean(dim=0)),
        contrast=_array(_contrast(first).mean(dim=0)),
        close_contrast=_array(_contrast(seen[-1]).mean(dim=0)),
        probability=seen[-1].probability(shape_zyx)[0].cpu().numpy(),
    )


def agree(opinions: Sequence[Opinion]) -> Opinion:
    """Average what several networks say; the spread also holds what their points differ by.

    All else is the mean of what single networks say, because that is what is known of scans that
    they have not seen: of each such scan, only one network hasn't.
    """
    points = np.stack([one.points for one in opinions])
    scatter = ((points - points.mean(axis=0)) ** 2).sum(axis=-1).mean(axis=0) / 3
    return Opinion(
        points=points.mean(axis=0),
        width=np.sqrt(np.mean([one.width**2 for one in opinions], axis=0)),
        spread=np.sqrt(np.mean([one.spread**2 for one in opinions], axis=0) + scatter),
        elsewhere=np.mean([one.elsewhere for one in opinions], axis=0),
        contrast=np.mean([one.contrast for one in opinions], axis=0),
        close_contrast=np.mean([one.close_contrast for one in opinions], axis=0),
        probability=np.mean([one.probability for one in opinions], axis=0),
    )


def disagreement(points: np.ndarray) -> np.ndarray:
    """Return the standard deviation, per axis, of what networks say an object's point is.

    Its expectation does not depend on how many networks they are.

    Parameters
    ----------
    points : array, shape (network, object, 3), at least two networks

    Returns
    -------
    array, shape (object,), in the points' unit
    """
    return np.sqrt(points.var(axis=0, ddof=1).mean(axis=-1))


def _spreads(seen: Sequence[Seen], points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the width of the last look's map, and its spread beyond the rendered target.

    A close look sees its window only: that the object might be elsewhere, the coarse map says, by
    being wider than it should be. Points of variants (variant, object, 3) that differ count too.
    """
    beyond = torch.stack([look.spread_beyond_target().square() for look in seen]).sum(0)
    width = seen[-1].decode().spread.square()
    for earlier in seen[:-1]:
        width = width + earlier.spread_beyond_target().square()
    scatter = (points - points.mean(dim=0)).square().sum(dim=-1).mean(dim=0) / 3
    return (width.mean(dim=0) + scatter).sqrt(), (beyond.mean(dim=0) + scatter).sqrt()


def _contrast(seen: Seen) -> Tensor:
    return seen.logits.amax((2, 3, 4)) - seen.logits.mean((2, 3, 4))


def _elsewhere(first: Seen, points: Tensor) -> Tensor:
    """Return the share of a look's map that lies outside a ball round points (batch, object, 3)."""
    maps = torch.softmax(first.logits.float().flatten(2), -1).view_as(first.logits)
    start = first.start.to(points)
    square = torch.zeros_like(maps)
    for axis, size in enumerate(maps.shape[2:]):
        places = (torch.arange(size, device=maps.device) + 0.5) * first.stride - 0.5
        offset = places + start[..., axis, None] - points[..., axis, None]
        shape = [*offset.shape[:2], 1, 1, 1]
        shape[axis + 2] = size
        square = square + offset.square().view(shape)
    radius = WINDOW_SIGMAS * first.sigma_voxels + first.stride
    return torch.where(square > radius**2, maps, 0).sum((2, 3, 4))


def _array(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
