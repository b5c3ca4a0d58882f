"""The demo: phantom scans, labelled as such, through the same training as real ones."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.config import check_config
from jawloc.phantom import brightest_spot, phantom_ids, write_phantoms
from jawloc.reporting.folders.run_folder import locked_run_folder
from jawloc.scans.cache import Example
from jawloc.training.distributed import SINGLE_PROCESS, Processes
from jawloc.training.splits import cross_validation_splits
from jawloc.workflows.cluster import ClusterOptions
from jawloc.workflows.cross_validate import run_cross_validation
from jawloc.workflows.prepare_data import decide_size
from jawloc.workflows.train import run_training
from jawloc.workflows.train_result import TrainResult

DEMO_NAME = "demo"
DEMO_FOLDER = Path("dicoms") / "demo"
DEMO_SCANS = 46
DEMO_SHAPE = (288, 96, 96)  # a seventh of a real scan along each axis
DEMO_SETTINGS: dict[str, Any] = {
    "downsampled_dicom_size": [96, 48, 48],
    "crop_size": [96, 48, 48],
    "validation_scans": 6,
    "test_scans": 6,
}


def run_demo(
    base: Path,
    model_name: str | None,
    overrides: Sequence[str],
    *,
    overwrite: bool = False,
    resume: bool = False,
    folds: int | None = None,
    processes: Processes = SINGLE_PROCESS,
    cluster: ClusterOptions | None = None,
) -> TrainResult | None:
    """Make phantom scans in `dicoms/demo` (once) and train on them.

    Without a name, the demo replaces the outputs of the last demo. `folds` are those of a
    cross-validation, trained on a `cluster` if there is one; None: a single training. Raise
    InputError as `run_training`.
    """
    settings = {**DEMO_SETTINGS, "dicom_dirs": [str(base / DEMO_FOLDER)]}
    config = check_config(settings, base=base, source="--demo", overrides=overrides)
    name = DEMO_NAME if model_name is None else model_name
    replace = overwrite or (model_name is None and not resume)
    if folds is not None:
        cross_validation_splits(phantom_ids(DEMO_SCANS), folds, config.split)  # may refuse them
    how: dict[str, Any] = {"overwrite": replace, "resume": resume}
    with ExitStack() as claim:
        if processes.is_main:  # refuses a name that is taken
            objects = list(config.cache.objects)
            claim.enter_context(locked_run_folder(base, name, objects, folds=folds or 0, **how))
        with processes.main_process_first():
            write_phantoms(base / DEMO_FOLDER, DEMO_SCANS, DEMO_SHAPE, progress=processes.is_main)
        config = decide_size(config)
        how["baselines"] = {"brightest_spot": _brightest}
        if folds is not None:
            return run_cross_validation(config, name, folds, cluster=cluster, **how)
        return run_training(config, name, processes=processes, **how)


def _brightest(example: Example) -> np.ndarray:
    spot = brightest_spot(example.image)
    return np.repeat(spot[None], len(example.points_voxels), axis=0)
