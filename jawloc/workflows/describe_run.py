"""The description and the tags of a run: what its page in MLflow says before and after."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from jawloc.config import Config
from jawloc.inference.crop_estimate import estimate_crops
from jawloc.inference.metrics import PositionErrors
from jawloc.reporting.descriptions import (
    describe_cross_validation,
    describe_scans,
    describe_training,
)
from jawloc.reporting.folders.own_files import own_run_names
from jawloc.reporting.tracking.pages import describe, last_thumbnails, page_of
from jawloc.reporting.tracking.runs import TrackedRun
from jawloc.reporting.tracking.views import KIND
from jawloc.workflows.prepare_data import Data


def tag_inputs(
    run: TrackedRun, config: Config, data: Data, kind: str, device: torch.device
) -> None:
    """Tag a run with what it is and what it is made from, to find and group runs by.

    The data set's digest changes with any scan and with what its downsampled copy depends on, and
    not with the split.
    """
    keys = " ".join(sorted(key for _, key in data.files()))
    run.tag(
        {
            KIND: kind,
            "objects": ", ".join(config.cache.objects),
            "grid": "×".join(map(str, config.cache.shape_zyx)),
            "device": device.type,
            "dataset": hashlib.sha256(keys.encode()).hexdigest()[:8],
        }
    )


def describe_begun(run: TrackedRun, config: Config, data: Data) -> None:
    """Describe a training that has begun, or that never ended."""
    describe(run, f"{_scans(config, data, 'is trained')}\n\nThe training is not finished.")


def describe_finished(
    run: TrackedRun,
    folder: Path,
    config: Config,
    data: Data,
    tested: PositionErrors,
    summary: Mapping[str, Any],
) -> None:
    """Describe a training by its results; `tested` are the errors in the test scans."""
    size = config.crop.crop_size
    crops = estimate_crops(tested.errors, data.examples, config.cache.objects, size)
    scans, files = _scans(config, data, "was trained"), own_run_names(folder)
    shown = page_of(run), files, last_thumbnails(run)
    describe(run, describe_training(summary, scans, crops, size, *shown))


def describe_folds(run: TrackedRun, folder: Path, summary: Mapping[str, Any]) -> None:
    """Describe a finished cross-validation by its results."""
    describe(run, describe_cross_validation(summary, page_of(run), own_run_names(folder)))


def _scans(config: Config, data: Data, state: str) -> str:
    split = data.split
    scans = {"train": split.train_ids, "validation": split.val_ids, "test": split.test_ids}
    return describe_scans(scans, list(config.cache.objects), config.cache.shape_zyx, state)
