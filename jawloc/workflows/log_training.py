"""What a training logs: its inputs, every epoch, its pictures and its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jawloc.config import Config
from jawloc.heatmaps.curriculum import notable_changes, start
from jawloc.inference.exports import table_text
from jawloc.inference.locator import Locator
from jawloc.inference.metrics import PositionErrors
from jawloc.reporting.figures import figure_to_array, save_figure
from jawloc.reporting.folders.own_files import own_run_names
from jawloc.reporting.folders.run_folder import CHECKPOINT, UNSENT
from jawloc.reporting.heatmap_tiles import heatmap_tiles
from jawloc.reporting.run_pictures import target_picture, write_pictures
from jawloc.reporting.summary import summary_metrics
from jawloc.reporting.text_files import write_json, write_text
from jawloc.reporting.tracking.runs import TrackedRun
from jawloc.training.loop import EpochRecord, TrainingState
from jawloc.training.network import build_network
from jawloc.workflows.describe_run import describe_begun
from jawloc.workflows.prepare_data import Data


def log_inputs(run: TrackedRun, folder: Path, config: Config, data: Data) -> None:
    """Log what the run starts from: settings, split, scans, and pictures of the first targets."""
    describe_begun(run, config, data)
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
        # step 0 is where MLflow's page opens the image grid
        sigmas = [start(schedule).sigma_voxels for schedule in schedules]
        for end, tile in heatmap_tiles(example, stages, sigmas, "Before training").items():
            run.log_heatmap(figure_to_array(tile), f"heatmap/{short}{end}", 0)


def draw_epoch(
    folder: Path, config: Config, data: Data, state: TrainingState
) -> dict[str, np.ndarray]:
    """Where a sigma changed notably, draw its new target into a file, and the image grid's tiles.

    Only stages whose sigma changed have their target drawn, each on its own heatmap grid. Return
    the tiles as `draw_tiles` does; none where no sigma changed.
    """
    changed = _stages_that_changed(config, state.records)
    if not changed:
        return {}
    record, stages = state.records[-1], config.network.stages()
    example = data.examples[data.split.train_ids[0]].read()
    for number in changed:
        stage, sigma = stages[number], record.sigmas_voxels[number]
        target = target_picture(example, sigma, stage, f"Epoch {record.epoch}")
        which = f"_{stage.name}" if stage.name else ""
        save_figure(target, folder / f"heatmap_epoch_{record.epoch}{which}_sigma_{sigma:.2f}.png")
    return draw_tiles(config, data, state, best_locator(state, config))


def _stages_that_changed(config: Config, records: Sequence[EpochRecord]) -> list[int]:
    """Return the stages whose sigma changed notably in the last epoch; in the first, all."""
    schedules = config.curriculum.per_stage(len(records[-1].sigmas_voxels))
    last = len(records) - 1
    return [
        number
        for number, schedule in enumerate(schedules)
        if last == 0
        or last
        in notable_changes(
            [record.sigmas_voxels[number] for record in records], schedule.minimum_sigma_voxels
        )
    ]


def draw_tiles(
    config: Config, data: Data, state: TrainingState, locator: Locator
) -> dict[str, np.ndarray]:
    """Draw the target of the last epoch, and what a locator predicts, in a scan of each use.

    Return the pictures (uint8, shape (rows, columns, 3)) by their rows in the image grid.
    """
    record, best = state.records[-1], state.best_epoch
    tiles: dict[str, np.ndarray] = {}
    when = f"Epoch {record.epoch}" + (f", weights of {best}" if best != record.epoch else "")
    for short, (_, ids) in data.split.titled().items():
        example, stages = data.examples[ids[0]].read(), config.network.stages()
        drawn = heatmap_tiles(example, stages, record.sigmas_voxels, when, locator)
        tiles |= {f"heatmap/{short}{end}": figure_to_array(tile) for end, tile in drawn.items()}
    return tiles


def log_epoch(run: TrackedRun, state: TrainingState, tiles: Mapping[str, np.ndarray]) -> None:
    """Log the last epoch's metrics, and what `draw_epoch` drew."""
    run.log_epoch(state.records[-1])
    log_tiles(run, state, tiles)


def log_tiles(run: TrackedRun, state: TrainingState, tiles: Mapping[str, np.ndarray]) -> None:
    """Log tiles to the image grid, at the step of the last epoch."""
    for row, tile in tiles.items():
        run.log_heatmap(tile, row, state.records[-1].epoch)


def log_missing(
    run: TrackedRun, folder: Path, config: Config, data: Data, state: TrainingState
) -> None:
    """Log the last epoch of a resumed run again, as far as it was killed before it had."""
    if not state.records:
        return
    with torch.random.fork_rng():  # the epoch's own drawing comes before its checkpoint
        pictures = draw_epoch(folder, config, data, state)
    log_epoch(run, state, pictures)


def seconds_logged(run: TrackedRun, epochs: int) -> float | None:
    """Return how long a training took that was interrupted after its numbers were logged.

    None where they are those of fewer epochs, to which more were added since.
    """
    return run.number("total_seconds") if run.number("epochs") == epochs else None


def best_locator(state: TrainingState, config: Config) -> Locator:
    """Return a locator with the weights that are kept so far."""
    network = build_network(config.network, len(config.cache.objects))
    network.load_state_dict(state.best_weights)
    flips = config.augmentation
    return Locator(
        networks=(network.to(next(state.network.parameters()).device).eval(),),
        network_config=config.network,
        downsampled_size=config.cache.shape_zyx,
        intensity=config.intensity,
        objects=config.cache.objects,
        sigma_voxels=(state.records[state.best_epoch - 1].sigmas_voxels,),
        crop_size=config.crop.crop_size,
        flipped_axes=flips.flip_axes if flips.enabled else (),
    )


def draw_results(
    run: TrackedRun,
    folder: Path,
    locator: Locator,
    tested: PositionErrors,
    state: TrainingState,
    config: Config,
    data: Data,
) -> None:
    """Draw the run's curves, predicted heatmaps, and the worst test scan of each object.

    The image grid gets the finished locator's heatmaps, unless it did after the last epoch.
    """
    if not _stages_that_changed(config, state.records):
        log_tiles(run, state, draw_tiles(config, data, state, locator))
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


def log_results(
    run: TrackedRun,
    folder: Path,
    summary: Mapping[str, Any],
    records: Sequence[EpochRecord] = (),
) -> None:
    """Write the summary; log its numbers, every file that the run wrote, and the model."""
    if records:
        write_text(folder / "metrics.csv", table_text([record.flat() for record in records]))
    write_json(folder / "summary.json", summary)
    run.log_summary(summary_metrics(summary))
    for name in sorted(own_run_names(folder) - {CHECKPOINT, UNSENT}):
        if (folder / name).is_file():
            run.log_file(folder / name, "outputs")
    run.log_locator(folder / f"{folder.name}.pth")
