"""Cross-validation: several trainings that together test every scan once.

Each fold is a training with a folder and a run of its own. The errors are those of each scan's
fold that did not train on it; the networks of all folds together are the locator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jawloc.config import Config
from jawloc.config.sigmas import tell_sigmas
from jawloc.config.slow_settings import tell_slow_settings
from jawloc.errors import InputError
from jawloc.inference.calibrate import join_folds
from jawloc.inference.evaluate_scan import PointFinder, ScanEvaluation
from jawloc.inference.held_out_errors import HeldOutErrors, held_out_errors
from jawloc.inference.locator import Locator, load_locator, save_locator
from jawloc.inference.metrics import PositionErrors
from jawloc.inference.model_evaluation import Failure, ModelEvaluation
from jawloc.inference.models import file_digest
from jawloc.reporting.evaluation_pictures import write_pictures as write_evaluation_pictures
from jawloc.reporting.evaluation_report import evaluation_metrics, write_report
from jawloc.reporting.folders.own_files import evaluation_names, own_names, refuse_foreign
from jawloc.reporting.folders.run_folder import (
    CHECKPOINT,
    UNSENT,
    is_finished,
    locked_run_folder,
    run_folder,
)
from jawloc.reporting.run_pictures import write_test_pictures
from jawloc.reporting.summary import OUT_OF_FOLD, out_of_fold_csv, summarise_folds
from jawloc.reporting.text_files import write_text
from jawloc.reporting.tracking.runs import TrackedRun, tracked_run
from jawloc.scans.listing import ListedScan
from jawloc.training.checkpoint import (
    load_folds_checkpoint,
    planned_epochs,
    save_folds_checkpoint,
)
from jawloc.training.device import choose_device
from jawloc.training.splits import specimens_of
from jawloc.workflows.cluster import ClusterOptions
from jawloc.workflows.cluster.client import open_cluster
from jawloc.workflows.compare_models import (
    find_earlier_model,
    fitting_model,
    record_of,
    with_earlier_model,
)
from jawloc.workflows.describe_run import describe_folds, tag_inputs
from jawloc.workflows.evaluate_scans import evaluate_scans
from jawloc.workflows.fold_errors import out_of_fold_errors, summarise_corrected_folds
from jawloc.workflows.log_training import log_results
from jawloc.workflows.prepare_data import Data, find_scans, prepare_folds
from jawloc.workflows.show_labels import show_labels
from jawloc.workflows.train_folds import CrossValidation, FoldsToTrain, train_folds
from jawloc.workflows.train_result import (
    TrainResult,
    begun_before,
    finished_result,
    send_before_replacing,
    send_rest,
)

FOLDS = "folds"  # a param of the run, beside the settings


def run_cross_validation(
    config: Config,
    model_name: str,
    folds: int,
    *,
    overwrite: bool = False,
    resume: bool = False,
    baselines: Mapping[str, PointFinder] | None = None,
    cluster: ClusterOptions | None = None,
) -> TrainResult:
    """Train every fold, evaluate all scans out of fold, and save the locator of all networks.

    Parameters
    ----------
    baselines : further ways to find the objects, reported beside the mean position
    cluster : where the folds are trained; None: here, one after the other

    Raises
    ------
    InputError
        Anything wrong with the name, the settings, the scans or the number of folds, or another
        process that writes into the same folder; before any slow work, and with nothing half-made
        left behind.
    """
    how: dict[str, Any] = {"overwrite": overwrite, "resume": resume}
    objects = list(config.cache.objects)
    with locked_run_folder(config.base, model_name, objects, folds=folds, **how) as folder:
        return _run_in(folder, config, model_name, folds, baselines or {}, cluster, **how)


def _run_in(
    folder: Path,
    config: Config,
    model_name: str,
    folds: int,
    baselines: Mapping[str, PointFinder],
    cluster: ClusterOptions | None,
    *,
    overwrite: bool,
    resume: bool,
) -> TrainResult:
    """Run the cross-validation in a folder that this process has locked."""
    shown = evaluation_names(list(config.cache.objects), [p.stem for p in find_scans(config)])
    refuse_foreign(folder, "--model-name", shown, own_names(folder, run=True))
    if overwrite:
        send_before_replacing(config.base, folder)
    params = {**config.as_params(), FOLDS: folds}
    if resume and is_finished(folder):
        return finished_result(folder, config, folds)
    resume = resume and begun_before(folder)
    if resume:
        load_folds_checkpoint(folder / CHECKPOINT, params)
    device = choose_device(config.training.device)
    tell_sigmas(config.curriculum, config.network, config.requested)
    tell_slow_settings(config, config.requested)
    resumed = folder if resume else None
    earlier = find_earlier_model(config, resumed=resumed)
    every = prepare_folds(config, folds, earlier=record_of(earlier))
    tested = [file for data in every for file in data.select(data.split.test_ids)]
    earlier = fitting_model(earlier, config, tested, resumed=resumed)
    baselines = with_earlier_model(baselines, earlier)
    same = {**params, **_fingerprint(every)}
    run_id = load_folds_checkpoint(folder / CHECKPOINT, same) if resume else None
    work = CrossValidation(model_name, config, every, baselines, folder, same)
    if run_id is not None:
        _extend(work, run_id)
    unsent, logged = folder / UNSENT, {**config.compared_params(), FOLDS: folds}
    with (
        open_cluster(cluster) as opened,
        tracked_run(config.base, model_name, params=logged, run_id=run_id, unsent=unsent) as run,
        run_folder(folder, overwrite=overwrite, resume=resume) as replaces,
    ):
        log_folds(run, work)
        if run_id is None:  # those of a resumed run are the same
            show_labels(folder, every)
        tag_inputs(run, config, every[0], "cross-validation", device)
        train_folds(FoldsToTrain(run.run_id, work, not replaces), opened)
        summary = evaluate_folds(run, work)
    (folder / CHECKPOINT).unlink()
    with suppress(ConnectionError):  # of folds that ended while it did not answer
        send_rest(config.base, folder)
    return TrainResult(folder, summary)


def _extend(work: CrossValidation, run_id: str) -> None:
    """Let all folds have more epochs, if that is asked for before one is finished."""
    before, now = planned_epochs(work.folder / CHECKPOINT), work.config.training.num_epochs
    if before == now:
        return
    # on a cluster, any fold may end first
    if any(work.is_finished(number) for number in range(1, len(work.folds) + 1)):
        raise InputError(
            f"--resume: num_epochs may grow only as long as no fold is finished; it was {before} "
            f"and is now {now}"
        )
    save_folds_checkpoint(work.folder / CHECKPOINT, work.same, run_id)


def evaluate_folds(run: TrackedRun, work: CrossValidation) -> dict[str, Any]:
    """Evaluate every scan by the fold that tested it; save and log the locator of all networks."""
    config, folder = work.config, work.folder
    folders = [work.folder_of(number) for number in range(1, len(work.folds) + 1)]
    device = str(choose_device(config.training.device))
    locators = [load_locator(fold / f"{fold.name}.pth", device) for fold in folders]
    evaluations = out_of_fold_errors(config, work.folds, work.baselines, locators)
    tested = [data.select(data.split.test_ids) for data in work.folds]
    chosen_by = [data.select(data.split.val_ids) for data in work.folds]
    joined, alone = join_folds(
        locators,
        tested,
        chosen_by,
        specimen_pattern=config.split.specimen_pattern,
        run_id=run.run_id,
    )
    own = [json.loads((fold / "summary.json").read_text(encoding="utf-8")) for fold in folders]
    splits = [data.split for data in work.folds]
    pattern = config.split.specimen_pattern
    specimens = specimens_of((i for split in splits for i in split.test_ids), pattern)
    summary = summarise_folds(work.name, splits, specimens, evaluations, own, joined.calibration)
    summary["run_id"] = run.run_id
    summary |= summarise_corrected_folds(work.folds, work.baselines, evaluations)
    errors = held_out_errors(summary)
    summary["warnings"] = [] if errors is None else errors.warnings()
    joined = replace(joined, errors=errors)
    save_locator(joined, folder / f"{folder.name}.pth")
    write_worst_pictures(work, locators, evaluations[OUT_OF_FOLD])
    evaluation = write_evaluation(run, work, alone, errors)
    crops = {name: metrics.crops for name, metrics in evaluation.metrics().items()}
    summary["crops"] = {name: own and asdict(own) for name, own in crops.items()}
    write_text(folder / "out_of_fold.csv", out_of_fold_csv(summary))
    log_results(run, folder, summary)
    run.log_summary(evaluation_metrics(evaluation))
    describe_folds(run, folder, summary)
    return summary


def write_evaluation(
    run: TrackedRun,
    work: CrossValidation,
    locators: Sequence[Locator],
    errors: HeldOutErrors | None,
) -> ModelEvaluation:
    """Write the report of `jawloc evaluate`, each scan evaluated by the fold that tested it.

    Parameters
    ----------
    locators : each fold's, calibrated on the scans of the others
    errors : of the locator of all networks
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
        errors=errors,
    )
    write_report(folder, evaluation, write_evaluation_pictures(folder, locators[0], evaluation, 6))
    return evaluation


def write_worst_pictures(
    work: CrossValidation, locators: Sequence[Locator], tested: PositionErrors
) -> None:
    """Draw the scan with the largest error of each object, as its fold's network predicts it."""
    for name in work.config.cache.objects:
        worst = tested.select(name).worst()
        for locator, data in zip(locators, work.folds, strict=True):
            if worst.scan_id in data.split.test_ids:
                example = data.examples[worst.scan_id].read()
                write_test_pictures(
                    work.folder, locator, example, worst, work.config.crop.crop_size
                )


def log_folds(run: TrackedRun, work: CrossValidation) -> None:
    """Log the settings, and the scans that each fold tests."""
    write_text(work.folder / "config.yml", work.config.as_yaml())
    run.log_file(work.folder / "config.yml")
    tested = {f"fold {k}": data.split.test_ids for k, data in enumerate(work.folds, start=1)}
    run.log_dict({key: list(ids) for key, ids in tested.items()}, "folds.json")
    # each fold's own: in another one, a corrected scan may have taken a scan's place
    keys = {e.scan_id: e.key for data in work.folds for e in data.select(data.split.test_ids)}
    run.log_dataset(tested, keys)


def _fingerprint(folds: Sequence[Data]) -> dict[str, str]:
    return {
        f"fold_{number}.{use}": text
        for number, data in enumerate(folds, start=1)
        for use, text in data.fingerprint().items()
    }
