"""Several trainings that test every scan once: the main path, read top to bottom.

Each fold is an experiment of its own, in a folder of its own, and leaves its locator there. What
they found in the scans that they did not see is the result's evaluation; all their networks
together are its locator.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jawloc.config import Config
from jawloc.config.sigmas import tell_sigmas
from jawloc.inference.calibrate import join_folds
from jawloc.inference.evaluate_scan import PointFinder, ScanEvaluation
from jawloc.inference.locator import Locator, load_locator, save_locator
from jawloc.inference.metrics import PositionErrors
from jawloc.inference.models import file_digest
from jawloc.reporting.evaluation_files import Failure, ModelEvaluation, flat_numbers
from jawloc.reporting.evaluation_pictures import write_pictures as write_evaluation_pictures
from jawloc.reporting.evaluation_report import write_files
from jawloc.reporting.folders.own_files import evaluation_names, own_names, refuse_foreign
from jawloc.reporting.folders.run_folder import CHECKPOINT, claimed_folder, run_folder
from jawloc.reporting.outputs import write_test_pictures, write_text
from jawloc.reporting.summary import OUT_OF_FOLD, summarise_folds, summarise_run
from jawloc.reporting.tables import write_metrics_csv, write_out_of_fold_csv
from jawloc.reporting.tracking.runs import TrackedRun, tracked_run
from jawloc.scans.listing import ListedScan
from jawloc.training.checkpoint import (
    load_checkpoint,
    load_folds_checkpoint,
    save_folds_checkpoint,
)
from jawloc.training.network import choose_device
from jawloc.training.splits import specimens_of
from jawloc.workflows.evaluate import evaluate_scans
from jawloc.workflows.prepare_data import Data, find_scans, prepare_folds
from jawloc.workflows.train import (
    TrainResult,
    draw_results,
    finish_locator,
    log_results,
    start_state,
    test,
    train_and_log,
)

FOLDS = "folds"  # a param of the run, beside the settings


@dataclass(frozen=True)
class CrossValidation:
    """What every fold must know."""

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
        """Say whether a fold, counted from 1, left its locator and nothing to go on with."""
        fold = self.folder_of(number)
        return (fold / f"{fold.name}.pth").is_file() and not (fold / CHECKPOINT).is_file()


def run_cross_validation(
    config: Config,
    model_name: str,
    folds: int,
    *,
    overwrite: bool = False,
    resume: bool = False,
    baselines: Mapping[str, PointFinder] | None = None,
) -> TrainResult:
    """Train so many folds; evaluate all scans out of fold; save and log one locator of all.

    Parameters
    ----------
    baselines : further ways to find the objects, to be named beside the mean position.

    Raises
    ------
    InputError
        Anything wrong with the name, the settings, the scans or the number of folds, or another
        process that writes into the same folder; before any slow work, and with nothing half-made
        left behind.
    """
    how = {"overwrite": overwrite, "resume": resume}
    objects = list(config.cache.objects)
    with claimed_folder(config.base, model_name, objects, folds=folds, **how) as folder:
        return _run_in(folder, config, model_name, folds, baselines or {}, **how)


def _run_in(
    folder: Path,
    config: Config,
    model_name: str,
    folds: int,
    baselines: Mapping[str, PointFinder],
    *,
    overwrite: bool,
    resume: bool,
) -> TrainResult:
    """Do as `run_cross_validation` in a folder that no other process writes into."""
    shown = evaluation_names(list(config.cache.objects), [p.stem for p in find_scans(config)])
    refuse_foreign(folder, "--model-name", shown, own_names(folder, run=True))
    params = {**config.as_params(), FOLDS: folds}
    if resume:
        load_folds_checkpoint(folder / CHECKPOINT, params)
    choose_device(config.training.device)
    tell_sigmas(config.curriculum, config.network)
    every = prepare_folds(config, folds)
    same = {**params, **_fingerprint(every)}
    run_id = load_folds_checkpoint(folder / CHECKPOINT, same) if resume else None
    work = CrossValidation(model_name, config, every, baselines, folder, same)
    with (
        tracked_run(config.base, model_name, params=params, run_id=run_id) as run,
        run_folder(folder, overwrite=overwrite, resume=resume),
    ):
        log_folds(run, work)
        for number in range(1, folds + 1):
            if not work.is_finished(number):
                train_fold(run, work, number)
        summary = evaluate_folds(run, work)
    (folder / CHECKPOINT).unlink()
    return TrainResult(folder, summary)


def train_fold(parent: TrackedRun, work: CrossValidation, number: int) -> None:
    """Train and test one fold as a run of its own, below the parent; or go on with it."""
    started = time.perf_counter()
    config, data, folder = work.config, work.folds[number - 1], work.folder_of(number)
    name, params = f"{work.name} fold {number}", config.as_params()
    same = {**params, **data.fingerprint()}
    state = start_state(config, choose_device(config.training.device))
    resume = (folder / CHECKPOINT).is_file()
    run_id = load_checkpoint(folder / CHECKPOINT, state, same) if resume else None
    earlier = sum(record.seconds for record in state.records)
    with (
        tracked_run(
            config.base, name, params=params, parent_run_id=parent.run_id, run_id=run_id
        ) as run,
        # what a fold may have left that can't be gone on with is replaced
        run_folder(folder, overwrite=True, resume=resume),
    ):
        label = f"fold {number} of {len(work.folds)}"
        for _ in train_and_log(run, folder, config, data, state, same, label=label):
            if not (work.folder / CHECKPOINT).is_file():
                # not before: until an epoch is whole, an earlier model would come back
                save_folds_checkpoint(work.folder / CHECKPOINT, work.same, parent.run_id)
        locator = finish_locator(folder, state, config, data, run.run_id)
        evaluations = test(locator, config, data, work.baselines)
        draw_results(folder, locator, evaluations["test"], state, config, data)
        seconds = earlier + time.perf_counter() - started
        write_metrics_csv(folder / "metrics.csv", state.records)
        specimens = specimens_of(data.examples, config.split.specimen_pattern)
        summary = summarise_run(
            name, data.split, state, evaluations, seconds, specimens, locator.calibration
        )
        summary["run_id"] = run.run_id
        log_results(run, folder, summary)
    (folder / CHECKPOINT).unlink()


def evaluate_folds(run: TrackedRun, work: CrossValidation) -> dict[str, Any]:
    """Evaluate every scan by the fold that tested it; save and log the locator of all networks."""
    config, folder = work.config, work.folder
    folders = [work.folder_of(number) for number in range(1, len(work.folds) + 1)]
    device = str(choose_device(config.training.device))
    locators = [load_locator(fold / f"{fold.name}.pth", device) for fold in folders]
    evaluations = _out_of_fold(work, locators)
    tested = [data.select(data.split.test_ids) for data in work.folds]
    chosen_by = [data.select(data.split.val_ids) for data in work.folds]
    joined, alone = join_folds(
        locators,
        tested,
        chosen_by,
        specimen_pattern=config.split.specimen_pattern,
        run_id=run.run_id,
    )
    save_locator(joined, folder / f"{folder.name}.pth")
    write_worst_pictures(work, locators, evaluations[OUT_OF_FOLD])
    evaluation = write_evaluation(run, work, alone)
    own = [json.loads((fold / "summary.json").read_text(encoding="utf-8")) for fold in folders]
    splits = [data.split for data in work.folds]
    specimens = specimens_of(work.folds[0].examples, config.split.specimen_pattern)
    summary = summarise_folds(work.name, splits, specimens, evaluations, own, joined.calibration)
    summary["run_id"] = run.run_id
    summary["crops"] = {name: asdict(s.crops) for name, s in evaluation.metrics().items()}
    write_out_of_fold_csv(folder / "out_of_fold.csv", summary[f"{OUT_OF_FOLD}_scans"])
    log_results(run, folder, summary)
    run.log_summary(flat_numbers(evaluation))
    return summary


def write_evaluation(
    run: TrackedRun, work: CrossValidation, locators: Sequence[Locator]
) -> ModelEvaluation:
    """Write what `jawloc evaluate` would say of each scan, by the fold that tested it.

    Parameters
    ----------
    locators : each fold's, calibrated on the scans of the others
    """
    folder, crop_size = work.folder, work.config.crop.crop_size
    evaluated: list[ScanEvaluation] = []
    failed: list[Failure] = []
    for number, (locator, data) in enumerate(zip(locators, work.folds, strict=True), start=1):
        scans = [ListedScan(e.scan_id, e.source) for e in data.select(data.split.test_ids)]
        title = f"evaluate fold {number} of {len(locators)}"
        own, lost = evaluate_scans(locator, scans, crop_size, list(locator.objects), title)
        evaluated += own
        failed += lost
    evaluation = ModelEvaluation(
        model=f"{work.name}, out of {len(locators)} folds",
        digest=file_digest(folder / f"{folder.name}.pth"),
        crop_size=crop_size,
        objects=tuple(work.config.cache.objects),
        evaluated=tuple(evaluated),
        failed=tuple(failed),
        radii=(),
        run_id=run.run_id,
    )
    write_files(folder, evaluation, write_evaluation_pictures(folder, locators[0], evaluation, 6))
    return evaluation


def write_worst_pictures(
    work: CrossValidation, locators: Sequence[Locator], tested: PositionErrors
) -> None:
    """Show, for each object, the scan with the largest error, as its fold's network saw it."""
    for name in work.config.cache.objects:
        worst = tested.select(name).worst()
        for locator, data in zip(locators, work.folds, strict=True):
            if worst.scan_id in data.split.test_ids:
                example = data.examples[worst.scan_id].read()
                write_test_pictures(
                    work.folder, locator, example, worst, work.config.crop.crop_size
                )


def log_folds(run: TrackedRun, work: CrossValidation) -> None:
    """Keep what the run starts from: the settings, and the scans that each fold tests."""
    write_text(work.folder / "config.yml", work.config.as_yaml())
    run.log_file(work.folder / "config.yml")
    tested = {f"fold {k}": data.split.test_ids for k, data in enumerate(work.folds, start=1)}
    run.log_dict({key: list(ids) for key, ids in tested.items()}, "folds.json")
    run.log_dataset(tested, {i: e.key for i, e in work.folds[0].examples.items()})


def _out_of_fold(work: CrossValidation, locators: Sequence[Locator]) -> dict[str, PositionErrors]:
    """Return the errors in all scans by way of finding them, the scans sorted by id."""
    pairs = zip(locators, work.folds, strict=True)
    every = [test(locator, work.config, data, work.baselines) for locator, data in pairs]
    return {
        OUT_OF_FOLD if key == "test" else key: PositionErrors(
            tuple(sorted((e for fold in every for e in fold[key].errors), key=lambda e: e.scan_id))
        )
        for key in every[0]
    }


def _fingerprint(folds: Sequence[Data]) -> dict[str, str]:
    return {
        f"fold_{number}.{use}": text
        for number, data in enumerate(folds, start=1)
        for use, text in data.fingerprint().items()
    }
