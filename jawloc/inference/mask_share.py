"""How much of a position comes from the heatmap, and how much from the predicted mask's centroid.

Both miss for reasons of their own, so that a point between them is often nearer to the truth than
either. Where between is learned from scans that the network was not trained on, and, while these
are few, from those that it was trained on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from jawloc.inference.locator import Locator
from jawloc.inference.predict import predict_stages
from jawloc.scans.cache import ExampleFile
from jawloc.training.dataset import full_size_edges, voxel_proportions
from jawloc.training.intensity import normalise
from jawloc.training.network import CoarseToFine, UNet

DOUBT_SCANS = 5.0  # as many held-out scans as this weigh as much as the prior
MOST_TRAINING_SCANS = 40  # more of them hardly change what they say
NO_MASK = -20.0  # logit of a voxel outside


@dataclass(frozen=True)
class _Points:
    """Points of scans, (scan, object, 3), in mm, or all in full-size voxels."""

    heatmap: np.ndarray
    mask: np.ndarray  # NaN where no mask is predicted
    truth: np.ndarray

    def share_of(self, number: int, prior: float = 0.0) -> float:
        """Return the best share for the object of this number."""
        return best_share(
            self.heatmap[:, number], self.mask[:, number], self.truth[:, number], prior
        )


def choose_mask_shares(
    locator: Locator, held_out: Sequence[ExampleFile], trained_on: Sequence[ExampleFile]
) -> Locator:
    """Return a locator of one network with the shares that fit the held-out scans best.

    The prior is what the training scans with masks say: mostly less than would be best for new
    scans (see the log of experiments), as heatmaps are learned by heart sooner. Of an object that
    no training scan's mask shows, the network then predicts no mask. Without mask supervision
    nothing changes.
    """
    network = copy.deepcopy(locator.networks[0])
    if (part := _part_with_masks(network)) is None:
        return locator
    masked = [file for file in trained_on if file.has_mask]
    _silence(part, [file.points_voxels for file in masked])
    chosen = replace(locator, networks=(network,))
    spread = np.linspace(0, len(masked) - 1, min(len(masked), MOST_TRAINING_SCANS)).astype(int)
    in_mm = all(file.grid.spacing_mm_zyx is not None for file in (*masked, *held_out))
    edges = voxel_proportions if in_mm else full_size_edges  # one unit for all
    learned, new = (
        _points(chosen, files, edges) for files in ([masked[i] for i in spread], held_out)
    )
    shares = [
        new.share_of(number, learned.share_of(number)) for number in range(len(locator.objects))
    ]
    part.mask_share = part.head.weight.new_tensor(shares)
    return chosen


def _silence(part: UNet, points: Sequence[np.ndarray]) -> None:
    """Let a network predict no mask of an object whose masks it was never taught.

    Its outputs stay as many, so that it goes together with the networks of other folds. `points`
    (object, 3) are NaN where a mask does not show the object.
    """
    objects = part.head.out_channels // 2  # heatmaps, then masks
    for number in range(objects):
        if not any(np.isfinite(own[number]).all() for own in points):
            with torch.no_grad():
                part.head.weight[objects + number] = 0
                assert part.head.bias is not None
                part.head.bias[objects + number] = NO_MASK


def _points(
    locator: Locator, files: Sequence[ExampleFile], edges: Callable[[ExampleFile], np.ndarray]
) -> _Points:
    """Return what the network of a locator, and the labels, say of scans.

    Points are in the unit of `edges`, which returns those of a scan's voxel along (z, y, x).
    """
    (network,), (sigmas,) = locator.networks, locator.sigma_voxels
    stages, device = locator.network_config.stages(), next(network.parameters()).device
    found: list[tuple[np.ndarray, ...]] = []
    for file in files:
        image = torch.from_numpy(normalise(file.read().image, locator.intensity))[None, None]
        with torch.inference_mode():
            last = predict_stages(network.eval(), stages, image.to(device), sigmas)[-1]
        centroids = last.mask_points()
        assert centroids is not None  # the network has mask supervision
        points = [p[0].double().cpu().numpy() for p in (last.heatmap_points(), centroids)]
        found.append(tuple(p * edges(file) for p in (*points, file.points_voxels)))
    if not found:
        return _Points(*[np.zeros((0, len(locator.objects), 3))] * 3)
    return _Points(*(np.stack(points) for points in zip(*found, strict=True)))


def best_share(
    heatmap: np.ndarray, mask: np.ndarray, truth: np.ndarray, prior: float = 0.0
) -> float:
    """Return the share of the mask's centroid with the least squared error, from 0 to 1.

    Points are (scan, 3), in one unit; scans with a NaN don't count. `DOUBT_SCANS` more scans are
    taken to say the prior share (ridge regression).
    """
    known = ~np.isnan(np.stack([heatmap, mask, truth])).any(axis=(0, 2))
    apart, wanted = (mask - heatmap)[known], (truth - heatmap)[known]
    squared, doubt = float((apart**2).sum()), DOUBT_SCANS / max(1, known.sum())
    if squared == 0:
        return prior
    share = (float((apart * wanted).sum()) / squared + doubt * prior) / (1 + doubt)
    return min(1.0, max(0.0, share))


def shares_of(locator: Locator) -> dict[str, float]:
    """Return each object's share, the mean over the networks; empty without mask supervision."""
    parts = map(_part_with_masks, locator.networks)
    shares = [p.mask_share.cpu() for p in parts if p is not None and p.mask_share is not None]
    if not shares:
        return {}
    mean = torch.stack(shares).mean(0).tolist()
    return dict(zip(locator.objects, mean, strict=True))


def _part_with_masks(network: nn.Module) -> UNet | None:
    """Return the part of a network that predicts masks: that of its last stage."""
    last = network.parts[-1] if isinstance(network, CoarseToFine) else network
    return last if isinstance(last, UNet) and last.mask_share is not None else None
