"""How many scans the presence network can hold at once to learn from: what the memory allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from jawloc.geometry import Shape

Extent = tuple[int, ...]  # an object's lengths along (z, y, x), voxels of the downsampled grid


def scans_that_fit(
    extents: Sequence[Sequence[Extent | None]],
    shape_zyx: Shape,
    pool_zyx: Shape,
    budget_bytes: float,
    seed: int,
) -> list[int]:
    """Return the numbers of the scans to learn from: those that show something, in their order.

    Where not all of them fit, each object is shown by one at least, and the rest is drawn.

    Parameters
    ----------
    extents : of each scan, of each object; None where it isn't there
    shape_zyx : the downsampled size
    pool_zyx : voxels that are averaged into one
    """
    showing = [i for i, of_scan in enumerate(extents) if any(of_scan)]
    voxels = math.prod(-(-n // p) for n, p in zip(shape_zyx, pool_zyx, strict=True))
    needed = {
        i: 4 * voxels + sum(outline_bytes(e, pool_zyx) for e in extents[i] if e) for i in showing
    }
    if sum(needed.values()) <= budget_bytes:
        return showing
    # drawn apart from everything else, which stays as it is with any budget
    drawn = torch.randperm(len(showing), generator=torch.Generator().manual_seed(seed)).tolist()
    order, fitting = [showing[i] for i in drawn], set[int]()
    for number in range(len(extents[0])):
        shown_by = [i for i in order if extents[i][number]]
        if not fitting.intersection(shown_by):
            fitting.update(shown_by[:1])
    left = budget_bytes - sum(needed[i] for i in fitting)
    for i in order:
        if i not in fitting and needed[i] <= left:
            fitting.add(i)
            left -= needed[i]
    return sorted(fitting)


def outline_bytes(extent: Extent, pool_zyx: Shape) -> int:
    """Return what the box of an object takes, a byte a voxel, however the blocks fall."""
    return math.prod(-(-(n - 1) // p) + 1 for n, p in zip(extent, pool_zyx, strict=True))
