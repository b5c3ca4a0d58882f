"""Train a locator: config -> scans -> training -> locator -> test -> report. Start reading here."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from jawloc.config import Config
from jawloc.config.sigmas import tell_sigmas
from jawloc.config.slow_settings import tell_slow_settings
from jawloc.inference.evaluate_scan import PointFinder
from jawloc.inference.predict import predict_stages
from jawloc.reporting.folders.run_folder import (
    CHECKPOINT,
    UNSENT,
    is_finished,
    locked_run_folder,
    output_folder,
    run_folder,
)
from jawloc.reporting.tracking.runs import TrackedRun, tracked_run
from jawloc.scans.progress import Progress
from jawloc.training.checkpoint import (
    check_settings,
    load_checkpoint,
    planned_epochs,
    save_checkpoint,
)
from jawloc.training.dataset import ScanTensors, load_scans
from jawloc.training.device import choose_rank_device
from jawloc.training.distributed import SINGLE_PROCESS, Processes
from jawloc.training.interruption import interruptions_held
from jawloc.training.loop import TrainingState, fit, planned_training, start_training
from jawloc.training.network import build_network
from jawloc.training.records import EpochRecord
from jawloc.training.schedule import extend
from jawloc.workflows.compare_models import (
    find_earlier_model,
    fitting_model,
    record_of,
    with_earlier_model,
)
from jawloc.workflows.describe_run import tag_inputs
from jawloc.workflows.finish_training import finish_training
from jawloc.workflows.log_training import (
    draw_epoch,
    log_epoch,
    log_inputs,
    log_missing,
    seconds_logged,
)
from jawloc.workflows.prepare_data import Data, prepare_data
from jawloc.workflows.show_labels import show_labels
from jawloc.workflows.train_result import (
    TrainResult,
    begun_before,
    finished_result,
    send_before_replacing,
)


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
        claim = nullcontext(output_folder(config.base, model_name, overwrite=True, resume=False))
    with claim as folder:
        with processes.main_process_first():  # which clears up after a killed one
            if overwrite and processes.is_main:
                send_before_replacing(config.base, folder)
            if resume and is_finished(folder):
                return finished_result(folder, config) if processes.is_main else None
            resume = resume and begun_before(folder, say=processes.is_main)
        if resume:
            check_settings(folder / CHECKPOINT, config.as_params())
        device = choose_rank_device(config.training.device, processes.world_size)
        if processes.is_main:
            tell_sigmas(config.curriculum, config.network, config.requested)
            tell_slow_settings(config, config.requested)
        resumed = folder if resume else None
        earlier = find_earlier_model(config, resumed=resumed) if processes.is_main else None
        data = prepare_data(config, processes, earlier=record_of(earlier))
        tested = data.select(data.split.test_ids)
        earlier = fitting_model(earlier, config, tested, resumed=resumed)
        finders = with_earlier_model(baselines or {}, earlier)
        job = Job(model_name, config, data, folder, finders, processes)
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
    after_saving: Callable[[], object] = lambda: None,
    keep_part: bool = True,
) -> dict[str, Any] | None:
    """Do one training as an MLflow run; its seconds count from `started` (`perf_counter()`)."""
    config, folder = job.config, job.folder
    state = start_state(config, device)
    run_id = load_state(job, state) if resume else None
    if not job.processes.is_main:
        deque(train(state, config, job.data, job.processes), maxlen=0)
        return None
    earlier = sum(record.seconds for record in state.records)  # of the interrupted run
    earlier += state.unfinished.seconds if state.unfinished else 0.0
    of_run: dict[str, Any] = {"parent_run_id": parent_run_id, "run_id": run_id}
    of_run |= {"params": config.compared_params(), "unsent": folder / UNSENT}
    with (
        tracked_run(config.base, job.name, **of_run) as run,
        run_folder(folder, overwrite=overwrite, resume=resume) as replaces,
    ):
        kind = "training" if parent_run_id is None else "fold"
        tag_inputs(run, config, job.data, kind, device)
        log_inputs(run, folder, config, job.data)
        if parent_run_id is None and run_id is None:  # those of a resumed run are the same
            show_labels(folder, [job.data])
        if run_id is not None:
            log_missing(run, folder, config, job.data, state)
        learn(job, state, run, after_saving, label, keep_part=keep_part and not replaces)
        known = None if run_id is None else seconds_logged(run, len(state.records))
        summary = finish_training(
            run, job, state, lambda: known or earlier + time.perf_counter() - started
        )
    (folder / CHECKPOINT).unlink()
    return summary


def learn(
    job: Job,
    state: TrainingState,
    run: TrackedRun,
    after_saving: Callable[[], object],
    label: str,
    *,
    keep_part: bool,
) -> None:
    """Train, with a checkpoint after every epoch, and within one when interrupted.

    `keep_part`: whether a part of the first epoch is kept; else an earlier model comes back.
    """
    config, folder, fingerprint = job.config, job.folder, job.fingerprint()

    def save() -> None:
        save_checkpoint(folder / CHECKPOINT, state, fingerprint, run.run_id)
        after_saving()

    with _stop_requests(job.processes) as should_stop:
        how: dict[str, Any] = {"label": label, "should_stop": should_stop}
        for _ in train(state, config, job.data, job.processes, **how):
            # in this order, a process that is killed has logged nothing that isn't saved, and what
            # is saved but not logged, `log_missing` logs later
            pictures = draw_epoch(folder, config, job.data, state)
            save()
            log_epoch(run, state, pictures)
        if state.unfinished is not None and (keep_part or state.records):
            save()


def _stop_requests(processes: Processes) -> AbstractContextManager[Callable[[], bool]]:
    if processes.world_size > 1:  # the others would wait for this one's batches
        return nullcontext(lambda: False)
    said = b"\nstopping after this batch; once more stops at once\n"
    return interruptions_held(say=lambda: os.write(2, said))


def load_state(job: Job, state: TrainingState) -> str:
    """Bring a fresh state to where the interrupted run stopped; return the id of its run."""
    path, config, scans = job.folder / CHECKPOINT, job.config.training, job.data.split.train_ids
    run_id = load_checkpoint(path, state, job.fingerprint())
    planned = replace(config, num_epochs=planned_epochs(path))
    before, now = (planned_training(each, len(scans)) for each in (planned, config))
    extend(state, before, now, math.ceil(len(scans) / config.batch_size))
    return run_id


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
    should_stop: Callable[[], bool] = lambda: False,
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
        should_stop,
    )
    done, total = len(state.records), training.num_epochs
    shown = processes.is_main and progress
    with Progress(total=total, initial=done, unit="epoch", desc=label, shown=shown) as bar:
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
