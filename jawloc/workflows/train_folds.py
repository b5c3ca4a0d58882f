"""The trainings of a cross-validation: one after the other, or at once on a cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jawloc.config import Config
from jawloc.errors import TrainingError
from jawloc.inference.evaluate_scan import PointFinder
from jawloc.reporting.folders.run_folder import CHECKPOINT
from jawloc.scans.locks import locked
from jawloc.scans.progress import Progress
from jawloc.training.checkpoint import save_folds_checkpoint
from jawloc.training.device import choose_device
from jawloc.workflows.cluster import Lost
from jawloc.workflows.cluster.tasks import Cluster
from jawloc.workflows.prepare_data import Data
from jawloc.workflows.train import Job, train_and_test


@dataclass(frozen=True)
class CrossValidation:
    """A cross-validation: its settings, the scans of each fold, and the folder of its results."""

    name: str
    config: Config
    folds: tuple[Data, ...]  # the data of each
    baselines: Mapping[str, PointFinder]
    folder: Path
    same: Mapping[str, object]  # what a resumed run must have in common

    def folder_of(self, number: int) -> Path:
        """Return the folder of a fold, counted from 1."""
        return self.folder / f"fold_{number}"

    def is_finished(self, number: int) -> bool:
        """Return whether a fold, counted from 1, has its locator and no checkpoint left."""
        fold = self.folder_of(number)
        return (fold / f"{fold.name}.pth").is_file() and not (fold / CHECKPOINT).is_file()


@dataclass(frozen=True)
class FoldsToTrain:
    """What the training of every fold needs; `keep_part` as in `learn`."""

    parent_run_id: str
    work: CrossValidation
    keep_part: bool


def train_folds(shared: FoldsToTrain, cluster: Cluster | None) -> None:
    """Train the folds that are not finished.

    Raises
    ------
    TrainingError
        If a fold's workers were killed again and again; the others are trained all the same.
    """
    numbers = range(1, len(shared.work.folds) + 1)
    to_do = [number for number in numbers if not shared.work.is_finished(number)]
    if cluster is None:
        for number in to_do:
            fold_task(shared, number)
        return
    lost: list[str] = []
    with Progress(
        total=len(numbers), initial=len(numbers) - len(to_do), desc="folds", unit="fold"
    ) as bar:
        for index, result in cluster.run(fold_on_worker, shared, to_do):
            if isinstance(result, Lost):
                lost.append(f"fold {to_do[index]}: {result.reason}")
            else:
                bar.update()
    for number in to_do:
        _lock_of(shared.work, number).unlink(missing_ok=True)
    if lost:
        raise TrainingError(f"{'; '.join(lost)} The same command with --resume goes on.")


def fold_task(shared: FoldsToTrain, number: int) -> None:
    """Train one fold, unless a worker finished it and was killed before it said so."""
    if not shared.work.is_finished(number):
        train_fold(shared.parent_run_id, shared.work, number, keep_part=shared.keep_part)


def fold_on_worker(shared: FoldsToTrain, number: int) -> None:
    """Train one fold while no other worker does.

    Dask gives the fold of a worker that it has not heard of for a while to another one, which waits
    here until the first has finished or is gone.
    """
    with locked(_lock_of(shared.work, number)):
        fold_task(shared, number)


def _lock_of(work: CrossValidation, number: int) -> Path:
    return work.folder / f".{work.folder_of(number).name}.lock"


def train_fold(parent_run_id: str, work: CrossValidation, number: int, *, keep_part: bool) -> None:
    """Train and test one fold, as a run below its parent; or resume it."""
    folder = work.folder_of(number)
    data = work.folds[number - 1]
    job = Job(f"{work.name} fold {number}", work.config, data, folder, work.baselines)

    def mark_begun() -> None:
        # not before the first epoch is whole: until then, an earlier model would come back
        if not (work.folder / CHECKPOINT).is_file():
            save_folds_checkpoint(work.folder / CHECKPOINT, work.same, parent_run_id)

    train_and_test(
        job,
        choose_device(work.config.training.device),
        time.perf_counter(),
        overwrite=True,  # of what a fold may have left that can't be resumed
        resume=(folder / CHECKPOINT).is_file(),
        parent_run_id=parent_run_id,
        label=f"fold {number} of {len(work.folds)}",
        after_saving=mark_begun,
        keep_part=keep_part,
    )
