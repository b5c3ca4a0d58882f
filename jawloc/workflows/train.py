"""One experiment, from config to logged model: the main path, read top to bottom."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from jawloc.config import Config
from jawloc.config.sigmas import tell_sigmas
from jawloc.errors import InputError
from jawloc.heatmaps.curriculum import start
from jawloc.inference.calibrate import calibrate
from jawloc.inference.evaluate_scan import PointFinder, evaluate_positions, mean_position
from jawloc.inference.locator import Locator, save_locator
from jawloc.inference.metrics import PositionErrors
from jawloc.inference.predict import predict_stages
from jawloc.reporting.figures import save_figure
from jawloc.reporting.folders.own_files import own_run_names
from jawloc.reporting.folders.run_folder import (
    CHECKPOINT,
    claimed_folder,
    output_folder,
    run_folder,
)
from jawloc.reporting.outputs import (
    predicted_picture,
    target_picture,
    write_json,
    write_text,
)
from jawloc.reporting.run_pictures import write_pictures
from jawloc.reporting.summary import describe_run, flat_numbers, summarise_run
from jawloc.reporting.tables import write_metrics_csv
from jawloc.reporting.tracking.runs import TrackedRun, tracked_run
from jawloc.training.checkpoint import check_settings, load_checkpoint, save_checkpoint
from jawloc.training.dataset import ScanTensors, load_scans
from jawloc.training.distributed import SINGLE_PROCESS, Processes
from jawloc.training.loop import EpochRecord, TrainingState, fit, start_training
from jawloc.training.network import build_network, choose_device
from jawloc.training.presence_classifier import train_presence_classifier
from jawloc.training.provenance import record_network
from jawloc.training.splits import specimens_of
from jawloc.workflows.prepare_data import Data, prepare_data


@dataclass(frozen=True)
class TrainResult:
    """What a run showed."""

    folder: Path
    summary: dict[str, Any]  # as in summary.json

    def describe(self) -> str:
        """Say it in a few lines."""
        base = self.folder.parents[2]
        elsewhere = "" if base.resolve() == Path.cwd() else f" (run it in {base})"
        return describe_run(self.summary, self.folder, f"jawloc ui{elsewhere}")


def run_training(
    config: Config,
    model_name: str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    baselines: Mapping[str, PointFinder] | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> TrainResult | None:
    """Train, test, save and log one locator.

    Parameters
    ----------
    baselines : further ways to find the objects, to be named beside the mean position.
    processes : the processes that train together; all but the leading one return None.

    Raises
    ------
    InputError
        Anything wrong with the name, the settings or the scans, or another process that writes
        into the same folder; before any slow work, and with nothing half-made left behind.
    """
    how = {"overwrite": overwrite, "resume": resume}
    # one process sees to it that the name is free: when the others look, it may be taken by that
    claim: AbstractContextManager[Path]
    if processes.is_main:
        claim = claimed_folder(config.base, model_name, list(config.cache.objects), **how)
    else:
        claim = nullcontext(output_folder(config.base, model_name, overwrite=True, resume=resume))
    with claim as folder:
        return _run_in(folder, config, model_name, baselines or {}, processes, **how)


def _run_in(
    folder: Path,
    config: Config,
    model_name: str,
    baselines: Mapping[str, PointFinder],
    processes: Processes,
    *,
    overwrite: bool,
    resume: bool,
) -> TrainResult | None:
    """Do as `run_training` in a folder that no other process writes into."""
    started = time.perf_counter()
    params = config.as_params()
    if resume:
        check_settings(folder / CHECKPOINT, params)
    device = choose_device(config.training.device)
    if processes.size > 1 and device.index is not None:
        raise InputError(
            "device: with torchrun every process takes a GPU of its own, so it must be auto, cpu "
            f"or cuda; received {config.training.device!r}"
        )
    if processes.is_main:
        tell_sigmas(config.curriculum, config.network)
    data = prepare_data(config, processes)
    state = start_state(config, device)
    same = {**params, **data.fingerprint()}  # what a resumed run must have in common
    run_id = load_checkpoint(folder / CHECKPOINT, state, same) if resume else None
    if not processes.is_main:
        deque(train(state, config, data, processes), maxlen=0)
        return None
    earlier = sum(record.seconds for record in state.records)  # of the run that was interrupted
    with (
        tracked_run(config.base, model_name, params=params, run_id=run_id) as run,
        run_folder(folder, overwrite=overwrite, resume=resume),
    ):
        deque(train_and_log(run, folder, config, data, state, same, processes), maxlen=0)
        locator = finish_locator(folder, state, config, data, run.run_id)
        evaluations = test(locator, config, data, baselines)
        draw_results(folder, locator, evaluations["test"], state, config, data)
        seconds = earlier + time.perf_counter() - started
        specimens = specimens_of(data.examples, config.split.specimen_pattern)
        summary = summarise_run(
            model_name, data.split, state, evaluations, seconds, specimens, locator.calibration
        )
        summary["run_id"] = run.run_id
        write_metrics_csv(folder / "metrics.csv", state.records)
        log_results(run, folder, summary)
    (folder / CHECKPOINT).unlink()
    return TrainResult(folder, summary)


def train_and_log(
    run: TrackedRun,
    folder: Path,
    config: Config,
    data: Data,
    state: TrainingState,
    same: Mapping[str, object],
    processes: Processes = SINGLE_PROCESS,
    *,
    label: str = "train",
) -> Iterator[EpochRecord]:
    """Train, with all that is logged on the way; after each yielded record a checkpoint is there.

    Parameters
    ----------
    same : what a resumed run must have in common with this one.
    """
    log_inputs(run, folder, config, data)
    for record in train(state, config, data, processes, label=label):
        # in this order, an interruption between the two repeats an epoch instead of losing it
        log_epoch(run, folder, config, data, state)
        save_checkpoint(folder / CHECKPOINT, state, same, run.run_id)
        yield record


def finish_locator(
    folder: Path, state: TrainingState, config: Config, data: Data, run_id: str
) -> Locator:
    """Return the best weights as a calibrated locator, which is then in the run's folder too."""
    split, locator = data.split, best_locator(state, config)
    tested, chosen_by, trained_on = (
        data.select(ids) for ids in (split.test_ids, split.val_ids, split.train_ids)
    )
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


def start_state(config: Config, device: torch.device) -> TrainingState:
    """Return a network with fresh weights and what trains it, all drawn from the seed."""
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
    loaded : the scans as tensors, where several trainings share them; else they are loaded.
    """
    device = next(state.network.parameters()).device
    ids = (data.split.train_ids, data.split.val_ids)
    if loaded is None:
        budget = config.training.memory_budget_gb
        parts = [load_scans(data.select(some), config.intensity, budget) for some in ids]
    else:
        parts = [loaded.select(some) for some in ids]
    scans, val = (part.on(device) for part in parts)
    epochs = fit(
        state,
        scans,
        val,
        config.training,
        config.curriculum,
        config.augmentation,
        config.network.stages(),
        predict_stages,
        processes,
    )
    done, total = len(state.records), config.training.num_epochs
    hidden = None if processes.is_main and progress else True  # None: shown on a terminal
    with tqdm(total=total, initial=done, unit="epoch", desc=label, disable=hidden) as bar:
        for record in epochs:
            if (end := state.last_epoch(config.training)) is not None:
                bar.total = end  # the curriculum has settled: now the end is known
            sigmas = " and ".join(f"{sigma:.2f}" for sigma in record.sigmas_voxels)
            bar.set_postfix_str(
                f"sigma {sigmas}, KL {record.train.kl_nats:.3f} (validation "
                f"{record.val.kl_nats:.3f}), error {record.val.error_voxels:.2f} voxels"
            )
            bar.update()
            yield record


def best_locator(state: TrainingState, config: Config) -> Locator:
    """Return the weights of the best validation error, with what using them needs."""
    network = build_network(config.network, len(config.cache.objects))
    network.load_state_dict(state.best_weights)
    flips = config.augmentation
    return Locator(
        networks=(network.to(next(state.network.parameters()).device).eval(),),
        network_config=config.network,
        downsampled_size=config.cache.downsampled_dicom_size,
        intensity=config.intensity,
        objects=config.cache.objects,
        sigma_voxels=(state.records[state.best_epoch - 1].sigmas_voxels,),
        crop_size=config.crop.crop_size,
        flipped_axes=flips.flip_axes if flips.enabled else (),
    )


def test(
    locator: Locator, config: Config, data: Data, baselines: Mapping[str, PointFinder]
) -> dict[str, PositionErrors]:
    """Find the objects in the test scans, with the network and by what needs none."""
    finders: dict[str, PointFinder] = {
        "test": lambda example: locator.predict(example.image).points_voxels,
        "mean_position": mean_position(data.select(data.split.train_ids)),
        **baselines,
    }
    scans, names = data.select(data.split.test_ids), list(config.cache.objects)
    return {
        key: PositionErrors(tuple(evaluate_positions((scan.read() for scan in scans), find, names)))
        for key, find in finders.items()
    }


def log_inputs(run: TrackedRun, folder: Path, config: Config, data: Data) -> None:
    """Keep what the run starts from: settings, split, data, and how the first targets look."""
    write_text(folder / "config.yml", config.as_yaml())
    run.log_file(folder / "config.yml")
    split = {"train": data.split.train_ids, "val": data.split.val_ids, "test": data.split.test_ids}
    run.log_dict({key: list(ids) for key, ids in split.items()}, "split.json")
    run.log_dataset(split, {scan_id: e.key for scan_id, e in data.examples.items()})
    stages = config.network.stages()
    schedules = config.curriculum.per_stage(len(stages))
    for short, (title, ids) in data.split.titled().items():
        example = data.examples[ids[0]].read()
        for number, (stage, schedule) in enumerate(zip(stages, schedules, strict=True)):
            picture = target_picture(example, start(schedule).sigma_voxels, stage, title)
            which = f"_{stage.name}" if number else ""
            save_figure(picture, folder / f"{short}_heatmap_example{which}.png")


def log_epoch(
    run: TrackedRun, folder: Path, config: Config, data: Data, state: TrainingState
) -> None:
    """Log an epoch's numbers; where a sigma changed, also show the new target and the prediction.

    Of two stages, those whose sigma changed have their target shown, each on its own heatmap grid.
    """
    record = state.records[-1]
    run.log_epoch(record)
    before = state.records[-2].sigmas_voxels if len(state.records) > 1 else ()
    if before == record.sigmas_voxels:
        return
    example = data.examples[data.split.train_ids[0]].read()
    stages = config.network.stages()
    for number, (stage, sigma) in enumerate(zip(stages, record.sigmas_voxels, strict=True)):
        if before[number : number + 1] == (sigma,):
            continue
        target = target_picture(example, sigma, stage, f"Epoch {record.epoch}")
        row = "heatmap/train" if stage is stages[-1] else f"heatmap/train_{stage.name}"
        run.log_heatmap(target, row, record.epoch)
        which = f"_{stage.name}" if stage.name else ""
        save_figure(target, folder / f"heatmap_epoch_{record.epoch}{which}_sigma_{sigma:.2f}.png")
    example = data.examples[data.split.val_ids[0]].read()
    title = f"Validation, best of {record.epoch} epochs"
    seen = predicted_picture(example, best_locator(state, config), title)
    run.log_heatmap(seen, "heatmap/val", record.epoch)


def draw_results(
    folder: Path,
    locator: Locator,
    tested: PositionErrors,
    state: TrainingState,
    config: Config,
    data: Data,
) -> None:
    """Draw the run's curves, predicted heatmaps, and the worst test scan of each object."""
    write_pictures(
        folder,
        locator,
        tested,
        state.records,
        data.split,
        data.examples,
        loss=config.training.loss,
        curriculum=config.curriculum,
        crop_size=config.crop.crop_size,
    )


def log_results(run: TrackedRun, folder: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary; log its numbers flat, every file that the run wrote, and the model."""
    write_json(folder / "summary.json", summary)
    run.log_summary(flat_numbers(summary))
    for name in sorted(own_run_names(folder) - {CHECKPOINT}):
        if (folder / name).is_file():
            run.log_file(folder / name, "outputs")
    run.log_locator(folder / f"{folder.name}.pth")
