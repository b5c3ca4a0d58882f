"""How the lab trains and locates, written anew from its description, to measure jawloc against.

What jawloc does differently is kept here on purpose: the integer centroid, the filtered Gaussian,
dropout during validation, the argmax. Where the description leaves something open, the cheaper
way is taken, so that no factor comes from a careless copy: scans stay in memory, and there are no
worker processes to start for each epoch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import torch
from monai.networks.nets import AttentionUnet
from scipy import ndimage
from torch import Tensor, nn

BATCH_SIZE = 8
LEARNING_RATE = 1e-4
EPOCHS = 250
INITIAL_SIGMA, MINIMUM_SIGMA, SHRINK_FACTOR = 8.0, 1.0, 0.9  # sigma in downsampled voxels
KL_THRESHOLD = 1.0  # nats; below it, sigma shrinks
MASK_TAG = (0x00BB, 0xB001)


@dataclass(frozen=True)
class LabScan:
    """A downsampled scan as the lab trains on it.

    Attributes
    ----------
    image : array, shape (z, y, x), raw grey values
    target_voxel : whole numbers (z, y, x): where the lab puts its Gaussian
    truth_voxels : centroid of the full-size mask on the downsampled grid: what errors are
        measured from, and what the lab's training never sees
    """

    image: np.ndarray
    target_voxel: tuple[int, ...]
    truth_voxels: np.ndarray


@dataclass(frozen=True)
class LabEpoch:
    """What one epoch gave; `seconds` are the lab's own work since the start, without our errors."""

    epoch: int
    seconds: float
    cpu_seconds: float  # of all threads
    sigma_voxels: float
    train_kl_nats: float
    error_as_validated_voxels: float  # argmax of the lab's own validation pass: dropout is on
    error_eval_voxels: float  # argmax after eval(), which the lab doesn't call


def build_network() -> nn.Module:
    return AttentionUnet(
        spatial_dims=3,
        in_channels=1,
        out_channels=1,
        channels=(8, 12, 16, 24, 32),
        strides=(2, 2, 2, 2, 1),
        kernel_size=5,
        dropout=0.15,
    )


def read_and_zoom(path: Path, shape_zyx: Sequence[int]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Read a labelled DICOM whole, mask and all, and zoom the image with cubic splines.

    Returns
    -------
    the zoomed image, and the shape that it had at full size
    """
    dataset = pydicom.dcmread(path)
    image = dataset.pixel_array
    _ = dataset[MASK_TAG].value  # part of the file that the lab reads, used or not
    factors = [n / size for n, size in zip(shape_zyx, image.shape, strict=True)]
    return ndimage.zoom(image, factors, order=3), image.shape


def decimated_centroid(mask: np.ndarray) -> tuple[int, ...]:
    """Return the centroid of a downsampled mask, cut down to whole voxels."""
    return tuple(int(c) for c in np.argwhere(mask > 0).mean(0))


def filtered_heatmap(voxel: Sequence[int], shape_zyx: Sequence[int], sigma: float) -> np.ndarray:
    """Blur a single bright voxel, with reflecting borders, and make the sum 1."""
    heatmap = np.zeros(tuple(shape_zyx), np.float32)
    heatmap[tuple(voxel)] = 1.0
    heatmap = ndimage.gaussian_filter(heatmap, sigma)
    return heatmap / heatmap.sum()


def locate(network: nn.Module, path: Path, shape_zyx: Sequence[int]) -> tuple[int, ...]:
    """Find the jaw in a full-size scan: read, zoom, predict, brightest voxel, scale back."""
    image, full_shape = read_and_zoom(path, shape_zyx)
    with torch.inference_mode():
        voxel = _argmax(network(as_batch([image])))[0]
    scaled = zip(voxel, full_shape, shape_zyx, strict=True)
    return tuple(int(v * size / n) for v, size, n in scaled)


class LabTraining:
    """The lab's network, its optimiser and where its schedule is."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.random = np.random.default_rng(seed)
        self.network = build_network().train()
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        self.sigma = INITIAL_SIGMA

    def step(self, images: Tensor, targets: Tensor) -> float:
        """Train on one batch, with all three metrics as the lab has them; return the KL in nats."""
        images, targets = self._flipped(images, targets)
        logits = self.network(images)
        loss = kl_nats(logits, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        dice_and_mse(logits.detach(), targets)
        return loss.item()

    def _flipped(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mirror each scan along each axis with probability one half, and its heatmap alike."""
        pairs = []
        for image, target in zip(images, targets, strict=True):
            axes = [axis for axis in (1, 2, 3) if self.random.random() < 0.5]
            pairs.append((image.flip(axes), target.flip(axes)))
        return torch.stack([i for i, _ in pairs]), torch.stack([t for _, t in pairs])

    def shrink(self, train_kl: float) -> bool:
        """Narrow the Gaussian if the last epoch was good enough; return whether it was."""
        if train_kl >= KL_THRESHOLD or self.sigma <= MINIMUM_SIGMA:
            return False
        self.sigma *= SHRINK_FACTOR
        return True


def kl_nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Return KL(target || softmax of the logits), the mean of the batch."""
    return nn.functional.kl_div(
        torch.log_softmax(logits.flatten(1), 1), targets.flatten(1), reduction="batchmean"
    )


def dice_and_mse(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    predicted, wanted = torch.softmax(logits.flatten(1), 1), targets.flatten(1)
    dice = 2 * (predicted * wanted).sum(1) / (predicted**2 + wanted**2).sum(1)
    return dice.mean().item(), nn.functional.mse_loss(predicted, wanted).item()


def train(
    lab: LabTraining, scans: Sequence[LabScan], validation: Sequence[LabScan], epochs: int
) -> Iterator[LabEpoch]:
    """Train as the lab does, and yield a record an epoch."""
    started, cpu_started = time.perf_counter(), time.process_time()
    set_aside, cpu_set_aside = 0.0, 0.0
    images, val_images = as_batch([s.image for s in scans]), as_batch([s.image for s in validation])
    targets, val_targets = heatmaps(scans, lab.sigma), heatmaps(validation, lab.sigma)
    for epoch in range(1, epochs + 1):
        sigma = lab.sigma
        order = torch.from_numpy(lab.random.permutation(len(scans)))
        kls = [lab.step(images[batch], targets[batch]) for batch in order.split(BATCH_SIZE)]
        with torch.no_grad():  # eval() is not called: dropout stays on, BatchNorm goes on learning
            parts = val_images.split(BATCH_SIZE)
            logits = torch.cat([lab.network(part) for part in parts])
            kl_nats(logits, val_targets).item()
            dice_and_mse(logits, val_targets)
        train_kl = float(np.mean(kls))
        if lab.shrink(train_kl):
            targets, val_targets = heatmaps(scans, lab.sigma), heatmaps(validation, lab.sigma)
        stopped, cpu_stopped = time.perf_counter(), time.process_time()
        yield LabEpoch(
            epoch=epoch,
            seconds=stopped - started - set_aside,
            cpu_seconds=cpu_stopped - cpu_started - cpu_set_aside,
            sigma_voxels=sigma,
            train_kl_nats=train_kl,
            error_as_validated_voxels=_mean_error(logits, validation),
            error_eval_voxels=mean_error(lab.network, validation),
        )
        set_aside += time.perf_counter() - stopped
        cpu_set_aside += time.process_time() - cpu_stopped


def heatmaps(scans: Sequence[LabScan], sigma: float) -> Tensor:
    rendered = [filtered_heatmap(s.target_voxel, s.image.shape, sigma) for s in scans]
    return torch.from_numpy(np.stack(rendered))[:, None]


def as_batch(images: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images).astype(np.float32))[:, None]


@torch.no_grad()
def mean_error(network: nn.Module, scans: Sequence[LabScan]) -> float:
    """Return the mean radial error of the argmax, without dropout, in downsampled voxels."""
    network.eval()
    logits = torch.cat([network(as_batch([scan.image])) for scan in scans])
    network.train()
    return _mean_error(logits, scans)


def _argmax(logits: Tensor) -> np.ndarray:
    flat = logits.flatten(1).argmax(1).numpy()
    return np.stack(np.unravel_index(flat, logits.shape[2:]), 1)


def _mean_error(logits: Tensor, scans: Sequence[LabScan]) -> float:
    truth = np.concatenate([s.truth_voxels.reshape(1, 3) for s in scans])
    return float(np.linalg.norm(_argmax(logits) - truth, axis=1).mean())
