"""Train a locator: config -> scans -> training -> locator -> test -> report. Start reading here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from jawloc.config import Config
from jawloc.config.sigmas import tell_sigmas
from jawloc.inference.calibrate import calibrate
from jawloc.inference.evaluate_scan import PointFinder, evaluate_positions, mean_position
from jawloc.inference.locator import Locator, save_locator
from jawloc.inference.mask_share import choose_mask_shares, shares_of
from jawloc.inference.metrics import PositionErrors
from jawloc.inference.predict import predict_stages
from jawloc.reporting.folders.run_folder import (
    CHECKPOINT,
    UNSENT,
    locked_run_folder,
    output_folder,
    run_folder,
)
from jawloc.reporting.summary import summarise_run
from jawloc.reporting.tracking.runs import tracked_run
from jawloc.training.checkpoint import check_settings, load_checkpoint, save_checkpoint
from jawloc.training.dataset import ScanTensors, load_scans
from jawloc.training.device import choose_rank_device
from jawloc.training.distributed import SINGLE_PROCESS, Processes
from jawloc.training.loop import TrainingState, fit, planned_training, start_training
from jawloc.training.network import build_network
from jawloc.training.presence_training import train_presence_classifier
from jawloc.training.provenance import record_network
from jawloc.training.records import EpochRecord
from jawloc.training.splits import specimens_of
from jawloc.workflows.describe_run import describe_finished
from jawloc.workflows.log_training import (
    best_locator,
    draw_results,
    log_epoch,
    log_inputs,
    log_results,
)
from jawloc.workflows.prepare_data import Data, prepare_data
from jawloc.workflows.train_result import TrainResult, send_rest


@dataclass(frozen=True)
class Job:
    """One training: its name, settings and scans, and the folder of its results.

    Attributes
    ----------
    baselines : further ways to find the objects, reported beside the mean position
    processes : that train together; all but the main one only train
    """

    name: str
    config: Config
    data: Data
    folder: Path
    baselines: Mapping[str, PointFinder] = field(default_factory=dict)
    processes: Processes = SINGLE_PROCESS

    def fingerprint(self) -> dict[str, object]:
        """Return what a resumed run must have in common with this one: settings and scans."""
        return {**self.config.as_params(), **self.data.fingerprint()}


def run_training(
    config: Config,
    model_name: str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    baselines: Mapping[str, PointFinder] | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> TrainResult | None:
    """Train, test, save and log one locator; all processes but the main one return None.

    Raises
    ------
    InputError
        Anything wrong with the name, the settings or the scans, or another process that writes
        into the same folder; before any slow work, and with nothing half-made left behind.
    """
    started, how = time.perf_counter(), {"overwrite": overwrite, "resume": resume}
    claim: AbstractContextManager[Path]
    if processes.is_main:
        claim = locked_run_folder(config.base, model_name, list(config.cache.objects), **how)
    else:  # when the others look, the name may be taken by the main process
        claim = nullcontext(output_folder(config.base, model_name, overwrite=True, resume=resume))
    with claim as folder:
        if resume and not (folder / CHECKPOINT).is_file():
            return send_rest(config.base, folder) if processes.is_main else None
        if resume:
            check_settings(folder / CHECKPOINT, config.as_params())
        device = choose_rank_device(config.training.device, processes.world_size)
        if processes.is_main:
            tell_sigmas(config.curriculum, config.network)
        data = prepare_data(config, processes)
        job = Job(model_name, config, data, folder, baselines or {}, processes)
        summary = train_and_test(job, device, started, overwrite=overwrite, resume=resume)
    return None if summary is None else TrainResult(folder, summary)


def train_and_test(
    job: Job,
    device: torch.device,
    started: float,
    *,
    overwrite: bool,
    resume: bool,
    parent_run_id: str | None = None,
    label: str = "train",
    after_epoch: Callable[[], object] = lambda: None,
) -> dict[str, Any] | None:
    """Do one training as an MLflow run; its seconds count from `started` (`perf_counter()`)."""
    config, folder, fingerprint = job.config, job.folder, job.fingerprint()
    state = start_state(config, device)
    run_id = load_checkpoint(folder / CHECKPOINT, state, fingerprint) if resume else None
    if not job.processes.is_main:
        deque(train(state, config, job.data, job.processes), maxlen=0)
        return None
    earlier = sum(record.seconds for record in state.records)  # of the interrupted run
    of_run: dict[str, Any] = {"parent_run_id": parent_run_id, "run_id": run_id}
    of_run |= {"params": config.compared_params(), "unsent": folder / UNSENT}
    with (
        tracked_run(config.base, job.name, **of_run) as run,
        run_folder(folder, overwrite=overwrite, resume=resume),
    ):
        log_inputs(run, folder, config, job.data, "training" if parent_run_id is None else "fold")
        for _ in train(state, config, job.data, job.processes, label=label):
            # in this order, an interruption between the two repeats an epoch instead of losing it
            log_epoch(run, folder, config, job.data, state)
            save_checkpoint(folder / CHECKPOINT, state, fingerprint, run.run_id)
            after_epoch()
        locator = finish_locator(folder, state, config, job.data, run.run_id)
        evaluations = evaluate_test_scans(locator, config, job.data, job.baselines)
        draw_results(run, folder, locator, evaluations["test"], state, config, job.data)
        seconds = earlier + time.perf_counter() - started
        summary = {**summarise(job, state, evaluations, locator, seconds), "run_id": run.run_id}
        log_results(run, folder, summary, state.records)
        describe_finished(run, folder, config, job.data, evaluations["test"], summary)
    (folder / CHECKPOINT).unlink()
    return summary


def start_state(config: Config, device: torch.device) -> TrainingState:
    """Return the state before the first epoch, all drawn from the seed."""
    torch.manual_seed(config.training.seed)
    if config.training.cpu_threads:
        torch.set_num_threads(config.training.cpu_threads)
    # every batch has one shape, so trying out the fastest convolutions pays
    torch.backends.cudnn.benchmark = True
    network = build_network(config.network, len(config.cache.objects)).to(device)
    return start_training(network, config.training, config.curriculum)


def train(
    state: TrainingState,
    config: Config,
    data: Data,
    processes: Processes = SINGLE_PROCESS,
    *,
    loaded: ScanTensors | None = None,
    progress: bool = True,
    label: str = "train",
) -> Iterator[EpochRecord]:
    """Run fit() with a progress bar.

    Parameters
    ----------
    loaded : the scans as tensors, where several trainings share them; else they are loaded
    """
    training = planned_training(config.training, len(data.split.train_ids))
    epochs = fit(
        state,
        *_load_parts(state, config, data, loaded),
        training,
        config.curriculum,
        config.augmentation,
        config.network.stages(),
        predict_stages,
        processes,
    )
    done, total = len(state.records), training.num_epochs
    hidden = None if processes.is_main and progress else True  # None: shown on a terminal
    with tqdm(total=total, initial=done, unit="epoch", desc=label, disable=hidden) as bar:
        for record in epochs:
            if (end := state.last_epoch(training)) is not None:
                bar.total = end  # the curriculum has settled: now the end is known
            bar.set_postfix_str(str(record))
            bar.update()
            yield record


def _load_parts(
    state: TrainingState, config: Config, data: Data, loaded: ScanTensors | None
) -> tuple[ScanTensors, ScanTensors]:
    """Return the scans to train on and those to validate on, on the network's device."""
    device, split = next(state.network.parameters()).device, data.split
    if loaded is not None:
        return loaded.select(split.train_ids).on(device), loaded.select(split.val_ids).on(device)
    budget, masks = config.training.memory_budget_gb, config.network.mask_supervision is True
    train_scans, val_scans = (
        load_scans(data.select(ids), config.intensity, budget, objects).on(device)
        for ids, objects in (
            (split.train_ids, config.cache.objects if masks else None),
            (split.val_ids, None),
        )
    )
    return train_scans, val_scans


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


def summarise(
    job: Job,
    state: TrainingState,
    evaluations: Mapping[str, PositionErrors],
    locator: Locator,
    seconds: float,
) -> dict[str, Any]:
    """Return what summary.json says of a training."""
    specimens = specimens_of(job.data.examples, job.config.split.specimen_pattern)
    split, calibration = job.data.split, locator.calibration
    summary = summarise_run(job.name, split, state, evaluations, seconds, specimens, calibration)
    shares = shares_of(locator)
    return {**summary, "mask_share": shares} if shares else summary
