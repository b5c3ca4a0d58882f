"""What follows a training's last epoch: the locator with the best weights, and its test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from jawloc.config import Config
from jawloc.inference.calibrate import calibrate
from jawloc.inference.evaluate_scan import PointFinder, evaluate_positions, mean_position
from jawloc.inference.locator import Locator, save_locator
from jawloc.inference.mask_share import choose_mask_shares
from jawloc.inference.metrics import PositionErrors
from jawloc.training.loop import TrainingState
from jawloc.training.presence_training import train_presence_classifier
from jawloc.training.provenance import record_network
from jawloc.workflows.log_training import best_locator
from jawloc.workflows.prepare_data import Data


def finish_locator(
    folder: Path, state: TrainingState, config: Config, data: Data, run_id: str
) -> Locator:
    """Build, calibrate and save the locator with the best weights."""
    split = data.split
    tested, chosen_by, trained_on = (
        data.select(ids) for ids in (split.test_ids, split.val_ids, split.train_ids)
    )
    locator = choose_mask_shares(best_locator(state, config), chosen_by, trained_on)
    learned = train_presence_classifier(
        trained_on,
        config.cache.objects,
        config.augmentation,
        config.presence_classifier,
        seed=config.training.seed,
        device=next(state.network.parameters()).device,
        memory_budget_gb=config.training.memory_budget_gb,
    )
    pattern = config.split.specimen_pattern
    locator = replace(
        locator,
        presence_classifiers=() if learned is None else (learned,),
        provenance=record_network(
            {
                "train": trained_on,
                "validation": chosen_by,
                "calibration": [*tested, *chosen_by],
                "test": tested,
            },
            locator.sigma_voxels[0],
            specimen_pattern=pattern,
            run_id=run_id,
        ),
    )
    locator = calibrate(locator, tested, chosen_by, trained_on, specimen_pattern=pattern)
    save_locator(locator, folder / f"{folder.name}.pth")
    return locator


def evaluate_test_scans(
    locator: Locator, config: Config, data: Data, baselines: Mapping[str, PointFinder]
) -> dict[str, PositionErrors]:
    """Find the objects in the test scans, with the network and with each baseline."""
    finders: dict[str, PointFinder] = {
        "test": lambda example: locator.predict(example.image).points_voxels,
        "mean_position": mean_position(data.select(data.split.train_ids)),
        **baselines,
    }
    scans, names = data.select(data.split.test_ids), list(config.cache.objects)
    return {
        key: PositionErrors(tuple(evaluate_positions((s.read() for s in scans), find, names)))
        for key, find in finders.items()
    }
