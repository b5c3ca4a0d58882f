"""Paint over an object's voxels, so that a scan lacks the object.

The paint, and how far it reaches beyond the object, is drawn each time, so that a network trained
on such scans learns to tell that the object is missing, not to recognise the paint (after random
erasing by Zhong et al., arXiv 1708.04896, here with the object's own mask).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jawloc.geometry import Shape

MOST_MARGIN = 3  # voxels by which a region is dilated, at most
RING = 2  # voxels round that, from which paint is taken
BOXED = 1 / 3  # share of the objects whose whole box is painted

Part = tuple[slice, ...]


@dataclass(frozen=True)
class ObjectRegion:
    """The voxels of one object in one scan."""

    start_zyx: Shape  # of the box round them, in voxels of the image
    inside: Tensor  # bool, the shape of the box

    @classmethod
    def from_mask(cls, inside: np.ndarray) -> ObjectRegion:
        """Return the region of the voxels (z, y, x) that are true, at least one."""
        places = np.argwhere(inside)
        (z, y, x), last = places.min(axis=0).tolist(), places.max(axis=0) + 1
        box = inside[z : last[0], y : last[1], x : last[2]]
        return cls((z, y, x), torch.from_numpy(box.copy()))


def sphere(shape_zyx: Shape, centre: np.ndarray, radii_voxels: np.ndarray) -> np.ndarray:
    """Return which voxels (bool) of a volume lie in a sphere, at least the one at its centre.

    Centre and radii are three numbers each, in voxels, since voxels needn't be cubes.
    """
    along = np.ogrid[tuple(slice(0, n) for n in shape_zyx)]
    inside: np.ndarray = (
        sum(((at - c) / r) ** 2 for at, c, r in zip(along, centre, radii_voxels, strict=True)) <= 1
    )
    inside[tuple(np.rint(centre).astype(int).clip(0, np.asarray(shape_zyx) - 1))] = True
    return inside


def inpaint(image: Tensor, region: ObjectRegion, generator: torch.Generator) -> Tensor:
    """Return a copy of an image (z, y, x), on the CPU, in which an object is painted over."""
    margin = int(torch.randint(MOST_MARGIN + 1, (1,), generator=generator))
    boxed = bool(torch.rand(1, generator=generator) < BOXED)
    part, inside = _dilate(region, margin, boxed, image.shape)
    paint = PAINTS[int(torch.randint(len(PAINTS), (1,), generator=generator))]
    painted = image.clone()
    painted[part][inside] = paint(image, part, inside, generator)
    return painted


def _dilate(
    region: ObjectRegion, margin: int, boxed: bool, shape: torch.Size
) -> tuple[Part, Tensor]:
    """Return the part of the image that holds region, margin and ring, and its painted voxels."""
    part, own = [], []
    for start, size, whole in zip(region.start_zyx, region.inside.shape, shape, strict=True):
        first = max(0, start - margin - RING)
        part.append(slice(first, min(whole, start + size + margin + RING)))
        own.append(slice(start - first, start - first + size))
    inside = torch.zeros([along.stop - along.start for along in part])
    inside[tuple(own)] = 1.0 if boxed else region.inside.float()
    if margin:
        inside = F.max_pool3d(inside[None], 2 * margin + 1, stride=1, padding=margin)[0]
    return tuple(part), inside > 0


# Paints: an image, a part of it, and which of the part's voxels -> their new grey values


def _flat(image: Tensor, part: Part, inside: Tensor, generator: torch.Generator) -> Tensor:
    """Return one grey value of the part."""
    values = image[part].flatten()
    one = values[torch.randint(len(values), (1,), generator=generator)]
    return one.expand(int(inside.sum()))


def _shuffled(image: Tensor, part: Part, inside: Tensor, generator: torch.Generator) -> Tensor:
    """Return grey values drawn from the ring, or from the whole part if there is no ring."""
    around = image[part][~inside]
    values = around if len(around) else image[part].flatten()
    return values[torch.randint(len(values), (int(inside.sum()),), generator=generator)]


def _blurred(image: Tensor, part: Part, inside: Tensor, generator: torch.Generator) -> Tensor:
    """Return means over about half of the part along each axis."""
    sizes = [2 * (length // 4) + 1 for length in inside.shape]
    padding = [size // 2 for size in sizes]
    means = F.avg_pool3d(image[part][None], sizes, 1, padding, count_include_pad=False)[0]
    return means[inside]


def _elsewhere(image: Tensor, part: Part, inside: Tensor, generator: torch.Generator) -> Tensor:
    """Return another part of the image, further along z, continued at its beginning."""
    length, whole = part[0].stop - part[0].start, image.shape[0]
    step = length + int(torch.randint(max(1, whole - 2 * length), (1,), generator=generator))
    rows = (torch.arange(part[0].start, part[0].stop) + step) % whole
    return image[rows][:, part[1], part[2]][inside]


PAINTS = (_flat, _shuffled, _blurred, _elsewhere)
