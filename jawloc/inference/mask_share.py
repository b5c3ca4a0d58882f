"""How much of a position comes from the heatmap, and how much from the predicted mask's centroid.

Both miss for reasons of their own, so that a point between them is often nearer to the truth than
either. Where between is learned from scans that the network was not trained on.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from jawloc.inference.locator import Locator
from jawloc.inference.predict import predict_stages
from jawloc.scans.cache import ExampleFile
from jawloc.training.dataset import voxel_proportions
from jawloc.training.intensity import normalise
from jawloc.training.network import CoarseToFine, UNet

DOUBT_SCANS = 5.0  # as many scans as this speak for the heatmap alone: few scans decide little


def choose_mask_shares(
    locator: Locator, held_out: Sequence[ExampleFile], trained_on: Sequence[ExampleFile]
) -> Locator:
    """Return a locator of one network with the shares that fit the held-out scans best.

    Without mask supervision, or where no training scan had a mask, nothing changes.
    """
    (network,), (sigmas,) = locator.networks, locator.sigma_voxels
    if (part := _with_masks(network)) is None:
        return locator
    if not any(file.has_mask for file in trained_on):
        return locator
    stages, device = locator.network_config.stages(), part.head.weight.device
    heatmap, mask, truth = [], [], []
    for file in held_out:
        image = torch.from_numpy(normalise(file.read().image, locator.intensity))[None, None]
        with torch.inference_mode():
            last = predict_stages(network.eval(), stages, image.to(device), sigmas)[-1]
        centroids = last.mask_points()
        assert centroids is not None  # the network has mask supervision
        size = voxel_proportions(file)
        heatmap.append(last.heatmap_points()[0].double().cpu().numpy() * size)
        mask.append(centroids[0].double().cpu().numpy() * size)
        truth.append(file.points_voxels * size)
    shares = [
        best_share(*(np.stack(points)[:, k] for points in (heatmap, mask, truth)))
        for k in range(len(locator.objects))
    ]
    chosen = copy.deepcopy(network)
    part = _with_masks(chosen)
    assert part is not None  # as before copying
    part.mask_share = torch.tensor(shares, dtype=torch.float32, device=device)
    return replace(locator, networks=(chosen,))


def best_share(heatmap: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of the mask's centroid with the least squared error, from 0 to 1.

    Points are (scan, 3), in one unit; scans with a NaN don't count. `DOUBT_SCANS` more scans are
    taken to say 0 (ridge regression).
    """
    known = ~np.isnan(np.stack([heatmap, mask, truth])).any(axis=(0, 2))
    apart, wanted = (mask - heatmap)[known], (truth - heatmap)[known]
    squared = float((apart**2).sum())
    if squared == 0:
        return 0.0
    share = float((apart * wanted).sum()) / (squared * (1 + DOUBT_SCANS / known.sum()))
    return min(1.0, max(0.0, share))


def shares_of(locator: Locator) -> dict[str, float]:
    """Return each object's share, the mean over the networks; empty without mask supervision."""
    parts = map(_with_masks, locator.networks)
    shares = [p.mask_share.cpu() for p in parts if p is not None and p.mask_share is not None]
    if not shares:
        return {}
    mean = torch.stack(shares).mean(0).tolist()
    return dict(zip(locator.objects, mean, strict=True))


def _with_masks(network: nn.Module) -> UNet | None:
    """Return the part of a network that predicts masks: that of its last stage."""
    last = network.parts[-1] if isinstance(network, CoarseToFine) else network
    return last if isinstance(last, UNet) and last.mask_share is not None else None
