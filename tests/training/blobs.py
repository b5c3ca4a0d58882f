"""A tiny problem for the training tests: find a bright blob in noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch

from jawloc.geometry import Grid
from jawloc.heatmaps.curriculum import CurriculumConfig
from jawloc.heatmaps.target import render
from jawloc.inference.predict import predict_stages
from jawloc.training import loop, scoring
from jawloc.training.augmentation import AugmentationConfig
from jawloc.training.dataset import ScanTensors
from jawloc.training.loop import TrainingConfig, TrainingState, start_training
from jawloc.training.network import build_network
from jawloc.training.stages import NetworkConfig

SHAPE = (16, 12, 12)
STRIDE = 2
NETWORK = NetworkConfig(
    name="unet", coarse=1, channels=(4, 8), stride=STRIDE, skip_connections="concatenate"
)
STILL = AugmentationConfig(enabled=False)
MOVED = AugmentationConfig(rotation_degrees_zyx=(180.0, 10.0, 10.0), shift=0.1, noise=0.02)
CURRICULUM = CurriculumConfig(
    initial_sigma_voxels=4.0,
    minimum_sigma_voxels=2.0,
    shrink_factor=0.7,
    trigger="error",
    threshold=0.5,
    patience=1,
    stop_patience=0,
)


def blob_scans(count: int, seed: int, spacing_mm: float | None = 0.1) -> ScanTensors:
    """Return scans with one blob each, its centre anywhere but within a voxel of the border."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor(SHAPE, dtype=torch.float32)
    points = torch.rand(count, 1, 3, generator=generator) * (extent - 3) + 1
    blobs = render(points, SHAPE, 1.2)
    images = blobs / blobs.amax((2, 3, 4), keepdim=True)
    images = images + 0.1 * torch.randn(images.shape, generator=generator)
    spacing = None if spacing_mm is None else (spacing_mm,) * 3
    return ScanTensors(
        ids=tuple(f"blob_{seed}_{i}" for i in range(count)),
        images=images,
        points=points,
        voxel_sizes=torch.ones(count, 3),
        grids=(Grid(SHAPE, spacing),) * count,
    )


def pair_scans(count: int, seed: int, lacking: Mapping[int, int] = MappingProxyType({})):
    """Return scans with a bright and a dark blob, of which some have no label on one of the two.

    Were the blob itself missing, each channel could learn to point at any blob there is.

    Parameters
    ----------
    lacking : scan number -> number of the object (0 the bright one) without a label
    """
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor(SHAPE, dtype=torch.float32)
    points = torch.rand(count, 2, 3, generator=generator) * (extent - 3) + 1
    blobs = render(points, SHAPE, 1.2)
    blobs = blobs / blobs.amax((2, 3, 4), keepdim=True)
    images = blobs[:, :1] - blobs[:, 1:]
    for scan, number in lacking.items():
        points[scan, number] = math.nan
    return ScanTensors(
        ids=tuple(f"pair_{seed}_{i}" for i in range(count)),
        images=images + 0.1 * torch.randn(images.shape, generator=generator),
        points=points,
        voxel_sizes=torch.ones(count, 3),
        grids=(Grid(SHAPE, (0.1, 0.1, 0.1)),) * count,
        object_names=("bright", "dark"),
    )


def training_config(**changes: object) -> TrainingConfig:
    """Return a configuration in which nothing depends on the defaults."""
    settings = {
        "batch_size": 4,
        "num_epochs": 3,
        "learning_rate": 0.01,
        "learning_rate_schedule": "cooldown",
        "warmup_epochs": 1,
        "cooldown_share": 0.3,
        "best_epoch_from": "start",
        "weight_decay": 0.01,
        "weight_average_epochs": 1.0,
        "loss": "kl",
        "device": "cpu",
        "seed": 0,
    }
    return TrainingConfig(**(settings | changes))  # type: ignore[arg-type]


def fresh_state(
    config: TrainingConfig,
    network: NetworkConfig = NETWORK,
    curriculum: CurriculumConfig = CURRICULUM,
    objects: int = 1,
) -> TrainingState:
    """Return a state with weights drawn from the configuration's seed."""
    torch.manual_seed(config.seed)
    return start_training(build_network(network, objects), config, curriculum)


def fit(*args, **settings):
    """Train as `jawloc.training.loop.fit`, validated by the prediction that users get."""
    return loop.fit(*args, predict_stages, **settings)


def validate(*args):
    """Score as `jawloc.training.scoring.validate`, likewise."""
    return scoring.validate(*args, predict_stages)
