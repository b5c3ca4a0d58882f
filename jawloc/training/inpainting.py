"""Scans from which an object is gone: the voxels that it had are painted over.

What is painted, and how far beyond the object's outline, differs each time, so that who learns
from such scans learns that the object is missing and not how paint looks (after the random
erasing of Zhong et al., arXiv 1708.04896, here with the object's own outline).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MOST_MARGIN = 3  # voxels by which an outline is widened, at most
RING = 2  # voxels round that, whose grey values are painted with
BOXED = 1 / 3  # share of the objects whose whole box is painted


@dataclass(frozen=True)
class ObjectRegion:
    """The voxels of one object in one scan.

    Attributes
    ----------
    start_zyx : of the box round them, in voxels of the image
    inside : tensor of bool, the shape of the box
    """

    start_zyx: tuple[int, int, int]
    inside: Tensor

    @classmethod
    def from_mask(cls, inside: np.ndarray) -> ObjectRegion:
        """Return the outline of the voxels (z, y, x) that are true, at least one."""
        along = [np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        z, y, x = (slice(int(places[0]), int(places[-1]) + 1) for places in along)
        return cls((z.start, y.start, x.start), torch.from_numpy(inside[z, y, x].copy()))


def inpaint(image: Tensor, outline: ObjectRegion, generator: torch.Generator) -> Tensor:
    """Return a copy of an image (z, y, x), on the CPU, in which an object is painted over."""
    margin = int(torch.randint(MOST_MARGIN + 1, (1,), generator=generator))
    boxed = bool(torch.rand(1, generator=generator) < BOXED)
    part, inside = _area(outline, margin, boxed, image.shape)
    paint = PAINTS[int(torch.randint(len(PAINTS), (1,), generator=generator))]
    erased = image.clone()
    erased[part][inside] = paint(image, part, inside, generator)
    return erased


def _area(
    outline: ObjectRegion, margin: int, boxed: bool, shape: torch.Size
) -> tuple[tuple[slice, ...], Tensor]:
    """Return a part of the image with a ring of what is round the object, and what is erased."""
    sizes, part, own = outline.inside.shape, [], []
    for start, size, whole in zip(outline.start_zyx, sizes, shape, strict=True):
        first = max(0, start - margin - RING)
        part.append(slice(first, min(whole, start + size + margin + RING)))
        own.append(slice(start - first, start - first + size))
    inside = torch.zeros([along.stop - along.start for along in part])
    inside[tuple(own)] = 1.0 if boxed else outline.inside.float()
    if margin:
        inside = F.max_pool3d(inside[None], 2 * margin + 1, stride=1, padding=margin)[0]
    return tuple(part), inside > 0


# What is painted: of an image, a part of it, and which of the part's voxels -> their grey values

Paint = Callable[[Tensor, tuple[slice, ...], Tensor, torch.Generator], Tensor]


def _flat(
    image: Tensor, part: tuple[slice, ...], inside: Tensor, generator: torch.Generator
) -> Tensor:
    """Return one grey value of those in the part."""
    values = image[part].flatten()
    one = values[torch.randint(len(values), (1,), generator=generator)]
    return one.expand(int(inside.sum()))


def _shuffled(
    image: Tensor, part: tuple[slice, ...], inside: Tensor, generator: torch.Generator
) -> Tensor:
    """Return grey values drawn from those round the object, or, where it fills all, from all."""
    around = image[part][~inside]
    values = around if len(around) else image[part].flatten()
    return values[torch.randint(len(values), (int(inside.sum()),), generator=generator)]


def _blurred(
    image: Tensor, part: tuple[slice, ...], inside: Tensor, generator: torch.Generator
) -> Tensor:
    """Return means over about half of the part along each axis."""
    own = image[part]
    sizes = [2 * (length // 4) + 1 for length in own.shape]
    means = F.avg_pool3d(
        own[None, None], sizes, 1, [size // 2 for size in sizes], count_include_pad=False
    )
    return means[0, 0][inside]


def _elsewhere(
    image: Tensor, part: tuple[slice, ...], inside: Tensor, generator: torch.Generator
) -> Tensor:
    """Return what lies in another part of the image, further along z, round its end if need be."""
    length, whole = part[0].stop - part[0].start, image.shape[0]
    step = length + int(torch.randint(max(1, whole - 2 * length), (1,), generator=generator))
    rows = (torch.arange(part[0].start, part[0].stop) + step) % whole
    return image[rows][:, part[1], part[2]][inside]


PAINTS: tuple[Paint, ...] = (_flat, _shuffled, _blurred, _elsewhere)
