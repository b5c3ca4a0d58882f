"""Train the presence classifier on patches with the object, without it, and from elsewhere."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from jawloc.geometry import Shape
from jawloc.scans.cache import Example, ExampleFile
from jawloc.scans.labels import Objects, voxels_by_object
from jawloc.scans.progress import Progress
from jawloc.training.augmentation import (
    AugmentationConfig,
    draw_augmentation,
    transform_intensities,
)
from jawloc.training.dataset import voxel_proportions
from jawloc.training.inpainting import ObjectRegion, inpaint, sphere
from jawloc.training.intensity import normalise
from jawloc.training.presence_classifier import (
    INTENSITY,
    SIDE,
    PresenceClassifier,
    pool_image,
    sample_patches,
)

EDGE = 2.5  # of a patch, in lengths of the object along its longest axis
BATCH_SIZE = 16
LEARNING_RATE, WEIGHT_DECAY, GRADIENT_NORM = 2e-3, 0.05, 1.0
MOST_SCANS = 128  # held in memory, as far as the budget goes
ABSENT, ELSEWHERE = 0.5, 0.25  # share of patches without the object; of these, from elsewhere
JITTER = 1.5  # samples between a patch's centre and the object's, as predictions are off too
FAR = 0.5  # of a patch's edge: the least distance from the object of a patch from elsewhere

ReadMasks = Callable[[Example], list[np.ndarray]]  # the voxels of each object, z, y, x
Extent = tuple[int, ...]  # an object's lengths along (z, y, x), voxels of the downsampled grid


@dataclass(frozen=True)
class PresenceClassifierConfig:
    """How long the presence classifier is trained."""

    steps: Annotated[int, Field(ge=0)] = 600  # training steps of 16 patches; 0: no classifier
    # The radius in mm of the sphere that stands in for the mask of a scan that has points. `null`:
    # such scans are left out.
    object_radius_mm: Annotated[float, Field(gt=0)] | None = None
    # The same in voxels of the full-size scan, for scans without a voxel size.
    object_radius_voxels: Annotated[float, Field(gt=0)] | None = None


def train_presence_classifier(
    files: Sequence[ExampleFile],
    objects: Objects,
    augmentation: AugmentationConfig,
    config: PresenceClassifierConfig,
    *,
    seed: int,
    device: torch.device,
    memory_budget_gb: float = math.inf,
) -> PresenceClassifier | None:
    """Train a presence classifier on the training scans.

    The memory budget (of 10^9 bytes) limits the pooled scans and masks that are held; at least one
    scan that shows each object is used. Returns None without steps, or if no scan has a labelled
    voxel in its downsampled mask, nor a point and the radius of a sphere round it. An object that
    no scan shows in this way is not taught.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = _draw_scans([file for file in files if _shown(file, config).any()], generator)
    read_masks = partial(_masks, objects=objects, config=config)
    extents = [_extents(read_masks(file.read())) for file in kept] if config.steps else []
    if not any(extent for of_scan in extents for extent in of_scan):
        return None
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = PresenceClassifier(len(objects))
    network.pitch_voxels.copy_(_pitch(kept, extents))
    shape, budget = kept[0].grid.shape_zyx, memory_budget_gb * 1e9
    fitting = _scans_that_fit(extents, shape, network.pool_zyx, budget, seed)
    scans = _load([kept[i] for i in fitting], read_masks, network.pool_zyx)
    _fit(network.to(device).train(), scans, augmentation, config.steps, generator)
    return network.eval()


def warn_without_extents(files: Sequence[ExampleFile], config: PresenceClassifierConfig) -> None:
    """Warn of objects of which no scan tells how large they are: their presence isn't classified.

    `files`, at least one, are the scans that train.
    """
    shown = np.any([_shown(file, config) for file in files], axis=0)
    unknown = [n for n, there in zip(files[0].object_names, shown, strict=True) if not there]
    if not config.steps or not unknown:
        return
    known = any(file.grid.spacing_mm_zyx is not None for file in files)
    of, then = f" of {' and '.join(unknown)}", "the presence classifier can't judge it, as that"
    if len(unknown) == len(shown):
        of, then = "", "there will be no presence classifier, which"
    warnings.warn(
        f"no training scan has a mask{of}, so {then} needs the object's extent: set "
        f"presence_classifier.object_radius_{'mm' if known else 'voxels'} for one",
        stacklevel=2,
    )


def _shown(file: ExampleFile, config: PresenceClassifierConfig) -> np.ndarray:
    """Return of which objects (bool) a scan tells where and how large they are."""
    there: np.ndarray = ~np.isnan(file.points_voxels).any(axis=1)
    return there & bool(file.has_mask or _radius(file, config))


def _draw_scans(files: Sequence[ExampleFile], generator: torch.Generator) -> list[ExampleFile]:
    """Return so many scans as may be held, in their order: first one of each object, if drawn."""
    drawn = torch.randperm(len(files), generator=generator).tolist()
    first = {
        number: i
        for i in reversed(drawn)
        for number in np.flatnonzero(~np.isnan(files[i].points_voxels).any(axis=1)).tolist()
    }
    order = dict.fromkeys([*first.values(), *drawn])
    return [files[i] for i in sorted([*order][:MOST_SCANS])]


def _radius(scan: Example | ExampleFile, config: PresenceClassifierConfig) -> float | None:
    known = scan.grid.spacing_mm_zyx is not None
    return config.object_radius_mm if known else config.object_radius_voxels


def _masks(
    example: Example, objects: Objects, config: PresenceClassifierConfig
) -> list[np.ndarray]:
    """Return the voxels of each object (bool), or of spheres round points.

    No voxel is true for an object that the scan lacks, or of which only the centre is known.
    """
    if example.mask is not None:
        return voxels_by_object(example.mask, objects)
    shape, radius = example.grid.shape_zyx, _radius(example, config)
    return [
        np.zeros(shape, bool)
        if radius is None or np.isnan(point).any()
        else sphere(shape, point, radius / voxel_proportions(example))
        for point in example.points_voxels
    ]


def _extents(masks: Sequence[np.ndarray]) -> list[Extent | None]:
    """Return the extent of each object in a scan; None where it is missing."""
    return [
        tuple(int(n) + 1 for n in np.ptp(np.argwhere(mask), axis=0)) if mask.any() else None
        for mask in masks
    ]


def _pitch(files: Sequence[ExampleFile], extents: Sequence[Sequence[Extent | None]]) -> Tensor:
    """Return the voxels between samples, (object, 3): cubes that hold the median object."""
    every = [voxel_proportions(file) for file in files]
    # each as a voxel of volume 1, since some may be in mm and some not
    proportions = np.mean([own / np.prod(own) ** (1 / 3) for own in every], axis=0)
    pitch = []
    for of_object in zip(*extents, strict=True):
        lengths = [np.array(extent) * proportions for extent in of_object if extent]
        edge = EDGE * float(np.median(np.max(lengths, axis=1))) if lengths else 0.0
        pitch.append(edge / SIDE / proportions)
    return torch.from_numpy(np.array(pitch)).float()


def _scans_that_fit(
    extents: Sequence[Sequence[Extent | None]],
    shape_zyx: Shape,
    pool_zyx: Shape,
    budget_bytes: float,
    seed: int,
) -> list[int]:
    """Return the numbers of the scans that show an object and fit into memory, in their order.

    If not all of them fit, one is kept for each object, and the rest is drawn.
    """
    showing = [i for i, of_scan in enumerate(extents) if any(of_scan)]
    voxels = math.prod(-(-n // p) for n, p in zip(shape_zyx, pool_zyx, strict=True))
    needed = {
        i: 4 * voxels + sum(_region_bytes(e, pool_zyx) for e in extents[i] if e) for i in showing
    }
    if sum(needed.values()) <= budget_bytes:
        return showing
    # a generator of its own: other draws don't depend on the budget
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


def _region_bytes(extent: Extent, pool_zyx: Shape) -> int:
    """Return the size of an object's box, a byte a voxel, wherever the pooled blocks begin."""
    return math.prod(-(-(n - 1) // p) + 1 for n, p in zip(extent, pool_zyx, strict=True))


@dataclass(frozen=True)
class _Scans:
    images: Tensor  # (scan, z, y, x), pooled
    regions: list[list[ObjectRegion | None]]  # of each scan, of each object; pooled
    points: Tensor  # (scan, object, 3), voxels before pooling

    def shown(self) -> list[tuple[int, int]]:
        """Return the numbers of scan and object of every object in every scan."""
        every = enumerate(self.regions)
        return [(i, k) for i, own in every for k, region in enumerate(own) if region is not None]


def _load(files: Sequence[ExampleFile], read_masks: ReadMasks, pool: Shape) -> _Scans:
    images, regions = torch.empty(0), []
    for number, file in enumerate(files):
        example = file.read()
        image = pool_image(torch.from_numpy(normalise(example.image, INTENSITY)), pool)
        if number == 0:  # filled one by one: a list, stacked at the end, would be held twice
            images = torch.empty(len(files), *image.shape)
        images[number] = image
        small = [
            pool_image(torch.from_numpy(mask).float(), pool) > 0 for mask in read_masks(example)
        ]
        regions.append([ObjectRegion.from_mask(m.numpy()) if m.any() else None for m in small])
    points = torch.from_numpy(np.stack([file.points_voxels for file in files])).float()
    return _Scans(images, regions, points)


def _fit(
    network: PresenceClassifier,
    scans: _Scans,
    augmentation: AugmentationConfig,
    steps: int,
    generator: torch.Generator,
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for _ in Progress(range(steps), desc="presence classifier", unit="step"):
        patches, numbers, present = _draw_batch(scans, network, augmentation, generator)
        logits = network(patches)[torch.arange(len(numbers)), numbers]
        loss = F.binary_cross_entropy_with_logits(logits, present)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimizer.step()
        schedule.step()


def _draw_batch(
    scans: _Scans,
    network: PresenceClassifier,
    augmentation: AugmentationConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw patches, the number of each one's object, and whether the object is there."""
    shown, device = scans.shown(), network.pitch_voxels.device
    drawn = torch.randint(len(shown), (BATCH_SIZE,), generator=generator).tolist()
    pairs = [shown[i] for i in drawn]
    numbers = torch.tensor([k for _, k in pairs])
    absent = torch.rand(BATCH_SIZE, generator=generator) < ABSENT
    elsewhere = absent & (torch.rand(BATCH_SIZE, generator=generator) < ELSEWHERE)
    pitch = network.pitch_voxels.cpu()[numbers]
    points = torch.stack([scans.points[i, k] for i, k in pairs])
    places = points + (torch.rand(points.shape, generator=generator) * 2 - 1) * JITTER * pitch
    shape = points.new_tensor(scans.images.shape[1:]) * points.new_tensor(network.pool_zyx)
    other = torch.rand(points.shape, generator=generator) * shape
    # where the other place is too near the object, that is painted over instead
    elsewhere &= ((other - points) / pitch).abs().amax(-1) > FAR * SIDE
    places = torch.where(elsewhere[:, None], other, places).to(device)
    images = [
        inpaint(scans.images[i], region, generator)
        if erased and (region := scans.regions[i][k])
        else scans.images[i]
        for (i, k), erased in zip(pairs, (absent & ~elsewhere).tolist(), strict=True)
    ]
    patches, pool = torch.stack(images)[:, None].to(device), network.pool_zyx
    if augmentation.enabled:
        centred, cube = replace(augmentation, shift=0.0), torch.full((BATCH_SIZE, 1, 3), SIDE / 2)
        sizes = torch.ones(BATCH_SIZE, 3)
        change = draw_augmentation(centred, cube, (SIDE,) * 3, sizes, generator)
        rotations = change.matrix.to(device)
        patches = sample_patches(patches, places, pitch.to(device), pool, rotations)
        patches = transform_intensities(patches, change)
    else:
        patches = sample_patches(patches, places, pitch.to(device), pool)
    return patches, numbers.to(device), (~absent).float().to(device)
