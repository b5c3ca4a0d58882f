"""The trainings of a cross-validation: one after the other, or at once on a cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from jawloc.config import Config
from jawloc.errors import TrainingError
from jawloc.inference.evaluate_scan import PointFinder
from jawloc.reporting.folders.run_folder import CHECKPOINT, is_finished
from jawloc.scans.locks import locked
from jawloc.scans.progress import Progress
from jawloc.training.checkpoint import save_folds_checkpoint
from jawloc.training.device import choose_device
from jawloc.training.interruption import stop_if_interrupted
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
        """Return whether a fold, counted from 1, came to its end."""
        return is_finished(self.folder_of(number))


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
    try:
        _train_each(shared, to_do, cluster)
    finally:
        for lock in (_lock_of(shared.work, number) for number in to_do):
            with suppress(Timeout), locked(lock, patience_seconds=0):  # not that of a lost worker
                lock.unlink(missing_ok=True)


def _train_each(shared: FoldsToTrain, to_do: Sequence[int], cluster: Cluster | None) -> None:
    if cluster is None:
        for number in to_do:
            fold_task(shared, number)
        return
    total = len(shared.work.folds)
    lost: list[str] = []
    with Progress(total=total, initial=total - len(to_do), desc="folds", unit="fold") as bar:
        for index, result in cluster.run(fold_task, shared, to_do):
            if isinstance(result, Lost):
                lost.append(f"fold {to_do[index]}: {result.reason}")
            else:
                bar.update()
    if lost:
        raise TrainingError(f"{'; '.join(lost)} The same command with --resume goes on.")


def fold_task(shared: FoldsToTrain, number: int) -> None:
    """Train one fold, unless a worker finished it and was killed before it said so.

    Dask gives the fold of a worker that it has not heard of for a while to another one, which waits
    here until the first has finished or is gone, or the command is.
    """
    work = shared.work
    with locked(_lock_of(work, number), check=stop_if_interrupted):
        if not work.is_finished(number):
            train_fold(shared.parent_run_id, work, number, keep_part=shared.keep_part)


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
