"""Is the object there at all? A small network of its own, asked of the place that was found.

The network that finds positions has learned from scans that all show the object: in a scan
without it, it tells from what is round it where it should be, and is as sure as ever. So a second
one learns what the first never had to: to tell an object's neighbourhood from the same with the
object painted over (erasing.py), and from other places of the scan. Both are drawn from the same
scans, with the same changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from jawloc.geometry import Shape
from jawloc.scans.cache import ExampleFile
from jawloc.scans.labels import object_voxels
from jawloc.training.augmentation import AugmentationConfig, change_intensities, draw_augmentation
from jawloc.training.dataset import voxel_proportions
from jawloc.training.inpainting import ObjectRegion, inpaint
from jawloc.training.intensity import IntensityConfig, normalise
from jawloc.training.presence_memory import Extent, scans_that_fit

AXES = "zyx"
SIDE = 24  # samples along each edge of a neighbourhood, which is a cube
EXTENTS = 2.5  # length of that edge, in lengths of the object along its longest axis
CHANNELS = (8, 16, 32)
GROUPS = 4  # of channels that are normalised together
BATCH_SIZE = 16
LEARNING_RATE, WEIGHT_DECAY, GRADIENT_NORM = 2e-3, 0.05, 1.0
INTENSITY = IntensityConfig()  # whatever the locator's rule is
MOST_SCANS = 128  # to learn from: they are held in memory, as far as the budget goes
ABSENT, ELSEWHERE = 0.5, 0.25  # share of neighbourhoods without the object; of these, elsewhere
JITTER = 1.5  # samples by which a neighbourhood is off the object's centroid, as what is found is
FAR = 0.5  # of a neighbourhood's edge: what is at least so far from the object is elsewhere


@dataclass(frozen=True)
class PresenceClassifierConfig:
    """How the locator learns to tell whether a place shows the object."""

    steps: Annotated[int, Field(ge=0)] = 600  # of 16 neighbourhoods each; 0: it doesn't learn it


class PresenceClassifier(nn.Module):
    """Neighbourhoods (batch, 1, side, side, side) -> logits (batch, object) of each being there.

    Attributes
    ----------
    pitch_voxels : tensor, shape (object, 3)
        Voxels of the downsampled grid between a neighbourhood's samples, along (z, y, x).
    """

    pitch_voxels: Tensor

    def __init__(self, n_objects: int) -> None:
        super().__init__()
        self.register_buffer("pitch_voxels", torch.ones(n_objects, 3))
        layers: list[nn.Module] = []
        before = 1
        for level, channels in enumerate(CHANNELS):
            layers += _layer(before, channels, stride=2 if level else 1)
            if level:
                layers += _layer(channels, channels, stride=1)
            before = channels
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * before, n_objects)

    def forward(self, neighbourhoods: Tensor) -> Tensor:
        """Return the logits."""
        seen = self.features(neighbourhoods).flatten(2)
        return self.head(torch.cat([seen.mean(-1), seen.amax(-1)], dim=1))

    @property
    def pool_zyx(self) -> Shape:
        """Return how many voxels are averaged into one before samples are taken."""
        z, y, x = (max(1, int(pitch)) for pitch in self.pitch_voxels.amin(0))
        return z, y, x


def _layer(n_in: int, n_out: int, stride: int) -> list[nn.Module]:
    # not normalised by channel: how bright a neighbourhood is compared with the scan tells a lot
    return [
        nn.Conv3d(n_in, n_out, 3, stride=stride, padding=1),
        nn.GroupNorm(GROUPS, n_out),
        nn.LeakyReLU(0.01, inplace=True),
    ]


# Looking


def presence_logits(
    network: PresenceClassifier, values: Tensor, points: np.ndarray, flipped_axes: Sequence[str]
) -> np.ndarray:
    """Say of each object whether it is where it was found.

    Parameters
    ----------
    values : tensor, shape (z, y, x), on the network's device
        A downsampled scan, its grey values normalised as `INTENSITY` says.
    points : array, shape (object, 3), its voxels
    flipped_axes : out of z, y and x: those along which copies are turned over, whose logits are
        meant

    Returns
    -------
    array, shape (object,): logits, positive where it rather is there
    """
    turns = [t for n in range(len(flipped_axes) + 1) for t in combinations(flipped_axes, n)]
    logits = []
    with torch.inference_mode():
        for number, pitch in enumerate(network.pitch_voxels):
            point = torch.as_tensor(points[number], dtype=torch.float32, device=values.device)
            near, inside = _crop(values, point, pitch, network.pool_zyx)
            small = _pooled(near, network.pool_zyx)
            one = _sample(small[None, None], inside[None], pitch, network.pool_zyx, None)
            copies = [torch.flip(one, [2 + AXES.index(axis) for axis in turn]) for turn in turns]
            logits.append(float(network(torch.cat(copies))[:, number].mean()))
    return np.array(logits)


def _crop(
    image: Tensor, point: Tensor, pitch: Tensor, pool: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return what of an image (z, y, x) a neighbourhood needs, and the point in it."""
    part, starts = [], []
    for at, step, factor, size in zip(point, pitch, pool, image.shape, strict=True):
        reach = float(step) * SIDE / 2 + 2 * factor
        last = (size - 1) // factor * factor
        first = min(max(0, int((float(at) - reach) // factor) * factor), last)
        part.append(slice(first, max(first + factor, int(float(at) + reach) + 1)))
        starts.append(first)
    return image[tuple(part)], point - point.new_tensor(starts)


def _pooled(image: Tensor, pool: Sequence[int]) -> Tensor:
    """Return means over blocks of an image (z, y, x), the last ones perhaps smaller."""
    if all(factor == 1 for factor in pool):
        return image
    return F.avg_pool3d(image[None], list(pool), ceil_mode=True, count_include_pad=False)[0]


def _sample(
    images: Tensor, points: Tensor, pitch: Tensor, pool: Sequence[int], turns: Tensor | None
) -> Tensor:
    """Return the neighbourhoods of points, trilinear; beyond the border the last voxel repeats.

    Parameters
    ----------
    images : tensor, shape (batch, 1, z, y, x), pooled
    points : tensor, shape (batch, 3), voxels before pooling
    pitch : tensor, shape (3,) or (batch, 3), voxels before pooling
    turns : tensor, shape (batch, 3, 3), or None
        How the neighbourhoods lie in the scan.
    """
    along = torch.arange(SIDE, device=images.device) - (SIDE - 1) / 2
    offsets = torch.stack(torch.meshgrid(along, along, along, indexing="ij"), dim=-1)
    turned = offsets if turns is None else torch.einsum("bij,zyxj->bzyxi", turns, offsets)
    factors = points.new_tensor(pool)
    centres = (points + 0.5) / factors - 0.5
    step = (pitch / factors).expand(len(points), 3)
    places = centres[:, None, None, None] + turned * step[:, None, None, None]
    last = points.new_tensor(images.shape[2:]) - 1
    grid = 2 * places / last.clamp_min(1) - 1
    return F.grid_sample(images, grid.flip(-1), padding_mode="border", align_corners=True)


# Learning


@dataclass(frozen=True)
class _Scans:
    """Scans to learn from: pooled, with every object's outline in them.

    Attributes
    ----------
    images : tensor, shape (scan, z, y, x)
    outlines : of each scan, of each object; None where it is missing
    points : tensor, shape (scan, object, 3), voxels before pooling
    """

    images: Tensor
    outlines: list[list[ObjectRegion | None]]
    points: Tensor

    def shown(self) -> list[tuple[int, int]]:
        """Return the numbers of scan and object of each object that there is."""
        every = enumerate(self.outlines)
        return [(i, k) for i, own in every for k, outline in enumerate(own) if outline is not None]


def train_presence_classifier(
    files: Sequence[ExampleFile],
    objects: Mapping[str, Sequence[int] | None],
    augmentation: AugmentationConfig,
    config: PresenceClassifierConfig,
    *,
    seed: int,
    device: torch.device,
    memory_budget_gb: float = math.inf,
) -> PresenceClassifier | None:
    """Learn from labelled scans to tell whether a place shows an object.

    Parameters
    ----------
    files : the training scans
    objects : label values by name; None stands for every non-zero one
    memory_budget_gb : float
        Of 10^9 bytes. It learns from no more scans than fit into it, pooled and with the outlines
        of their objects; from one that shows each object at least.

    Returns
    -------
    None where nothing is to be learned: no steps, or no scan with a labelled voxel in its
    downsampled mask.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(files), generator=generator)[:MOST_SCANS].sort().values
    if config.steps == 0:
        return None
    kept = [files[i] for i in chosen.tolist()]
    extents = [_extents(file, objects) for file in kept]
    if not any(extent for of_scan in extents for extent in of_scan):
        return None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = PresenceClassifier(len(objects))
    network.pitch_voxels.copy_(_pitch(kept, extents))
    shape, budget = kept[0].grid.shape_zyx, memory_budget_gb * 1e9
    fitting = scans_that_fit(extents, shape, network.pool_zyx, budget, seed)
    scans = _load([kept[i] for i in fitting], objects, network.pool_zyx)
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=config.steps
    )
    for _ in tqdm(range(config.steps), desc="presence", unit="step", disable=None):
        inputs, numbers, there = _draw(scans, network, augmentation, generator, device)
        logits = network(inputs)[torch.arange(len(numbers)), numbers]
        loss = F.binary_cross_entropy_with_logits(logits, there)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimizer.step()
        schedule.step()
    return network.eval()


def _masks(mask: np.ndarray, objects: Mapping[str, Sequence[int] | None]) -> list[np.ndarray]:
    return [object_voxels(mask, values) for values in objects.values()]


def _extents(file: ExampleFile, objects: Mapping[str, Sequence[int] | None]) -> list[Extent | None]:
    """Return the lengths along (z, y, x) of each object in a scan, voxels; None: it isn't there."""
    return [
        tuple(int(n) + 1 for n in np.ptp(np.argwhere(mask), axis=0)) if mask.any() else None
        for mask in _masks(file.read().mask, objects)
    ]


def _pitch(files: Sequence[ExampleFile], extents: Sequence[Sequence[Extent | None]]) -> Tensor:
    """Return the voxels between samples, (object, 3): cubes that hold the median object."""
    every = [voxel_proportions(file) for file in files]
    # each as a voxel of volume 1, since some may be in mm and some not
    proportions = np.mean([own / np.prod(own) ** (1 / 3) for own in every], axis=0)
    pitch = []
    for of_object in zip(*extents, strict=True):
        lengths = [np.array(extent) * proportions for extent in of_object if extent]
        # an object that no scan shows here is never asked about
        edge = EXTENTS * float(np.median(np.max(lengths, axis=1))) if lengths else SIDE
        pitch.append(edge / SIDE / proportions)
    return torch.from_numpy(np.array(pitch)).float()


def _load(
    files: Sequence[ExampleFile], objects: Mapping[str, Sequence[int] | None], pool: Shape
) -> _Scans:
    images, outlines = torch.empty(0), []
    for number, file in enumerate(files):
        example = file.read()
        image = _pooled(torch.from_numpy(normalise(example.image, INTENSITY)), pool)
        if number == 0:  # finished ones would otherwise wait for the last, held twice
            images = torch.empty(len(files), *image.shape)
        images[number] = image
        masks = _masks(example.mask, objects)
        small = [_pooled(torch.from_numpy(mask).float(), pool) > 0 for mask in masks]
        outlines.append([ObjectRegion.from_mask(m.numpy()) if m.any() else None for m in small])
    points = torch.from_numpy(np.stack([file.points_voxels for file in files])).float()
    return _Scans(images, outlines, points)


def _draw(
    scans: _Scans,
    network: PresenceClassifier,
    augmentation: AugmentationConfig,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a batch: neighbourhoods, the number of the object in question, whether it is there."""
    shown = scans.shown()
    drawn = torch.randint(len(shown), (BATCH_SIZE,), generator=generator).tolist()
    pairs = [shown[i] for i in drawn]
    absent = torch.rand(BATCH_SIZE, generator=generator) < ABSENT
    elsewhere = absent & (torch.rand(BATCH_SIZE, generator=generator) < ELSEWHERE)
    numbers = torch.tensor([k for _, k in pairs])
    pitch = network.pitch_voxels.cpu()[numbers]
    points = torch.stack([scans.points[i, k] for i, k in pairs])
    places = points + (torch.rand(points.shape, generator=generator) * 2 - 1) * JITTER * pitch
    shape = points.new_tensor(scans.images.shape[1:]) * points.new_tensor(network.pool_zyx)
    other = torch.rand(points.shape, generator=generator) * shape
    far = ((other - points) / pitch).abs().amax(-1) > FAR * SIDE
    elsewhere &= far  # what is drawn too near the object is painted over instead
    places = torch.where(elsewhere[:, None], other, places)
    images = [
        inpaint(scans.images[i], outline, generator)
        if bool(absent[j]) and not bool(elsewhere[j]) and (outline := scans.outlines[i][k])
        else scans.images[i]
        for j, (i, k) in enumerate(pairs)
    ]
    inputs = torch.stack(images)[:, None].to(device)
    change = None
    if augmentation.enabled:
        still = replace(augmentation, shift=0.0)
        cube = torch.full((BATCH_SIZE, 1, 3), SIDE / 2)
        change = draw_augmentation(still, cube, (SIDE,) * 3, torch.ones(BATCH_SIZE, 3), generator)
    turns = None if change is None else change.matrix.to(device)
    inputs = _sample(inputs, places.to(device), pitch.to(device), network.pool_zyx, turns)
    if change is not None:
        inputs = change_intensities(inputs, change)
    return inputs, numbers.to(device), (~absent).float().to(device)
