"""One experiment, from config to logged model: the main path, read top to bottom."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from jawloc.config import Config
from jawloc.errors import InputError
from jawloc.locating.evaluation import Evaluation, PointFinder, evaluate_positions, mean_position
from jawloc.locating.locator import Locator, save_locator
from jawloc.reporting.figures import plot_losses, plot_metrics, plot_sigma, save_figure
from jawloc.reporting.outputs import (
    predicted_picture,
    target_picture,
    write_json,
    write_metrics_csv,
    write_test_pictures,
    write_text,
)
from jawloc.reporting.tracking import TrackedRun, tracked_run
from jawloc.scans.cache import Example, build_cache, load_example
from jawloc.scans.dicom import find_labelled_dicoms
from jawloc.training.checkpoint import load_checkpoint, save_checkpoint
from jawloc.training.dataset import Split, choose_split, to_tensors
from jawloc.training.loop import EpochRecord, TrainingState, fit, start_training
from jawloc.training.network import build_network, choose_device

OUTPUT_FOLDER = Path("script_output") / "jaw_location"
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Data:
    """The examples of a run and what each is used for."""

    split: Split
    examples: dict[str, Example]  # by scan id

    def of(self, ids: Sequence[str]) -> list[Example]:
        """Return the examples of these scan ids."""
        return [self.examples[scan_id] for scan_id in ids]


@dataclass(frozen=True)
class Result:
    """What a run showed."""

    folder: Path
    test: Evaluation
    baselines: dict[str, Evaluation]  # by name: what needs no network
    summary: dict[str, Any]


def run_experiment(
    config: Config,
    model_name: str,
    *,
    overwrite: bool = False,
    resume: bool = False,
    baselines: Mapping[str, PointFinder] | None = None,
) -> Result:
    """Train, test, save and log one locator.

    Parameters
    ----------
    baselines : further ways to find the objects, to be named beside the mean position.

    Raises
    ------
    InputError
        Anything wrong with the name, the settings or the scans; before any slow work, and with
        nothing half-made left behind.
    """
    started = time.perf_counter()
    folder = output_folder(config.base, model_name, overwrite=overwrite, resume=resume)
    device = choose_device(config.training.device)
    data = prepare_data(config)
    state = start_state(config, device)
    run_id = load_checkpoint(folder / CHECKPOINT, state, config.as_params()) if resume else None
    _make_folder(folder, keep=resume)
    with tracked_run(
        config.base, model_name, params=config.as_params(), tags={}, run_id=run_id
    ) as run:
        _log_inputs(run, folder, config, data)
        for record in train(state, config, data):
            save_checkpoint(folder / CHECKPOINT, state, config.as_params(), run.run_id)
            log_epoch(run, folder, config, data, state, record)
        locator = best_locator(state, config)
        save_locator(locator, folder / f"{model_name}.pth")
        result = test(locator, state, config, data, folder, baselines or {})
        result.summary.update(name=model_name, seconds=round(time.perf_counter() - started, 1))
        write_outputs(result, locator, state, config, data)
        _log_results(run, result, folder / f"{model_name}.pth")
    (folder / CHECKPOINT).unlink()
    return result


def output_folder(base: Path, model_name: str, *, overwrite: bool, resume: bool) -> Path:
    """Return the run's folder, once its name is known to be plain and free."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9 ._+=-]*", model_name) or model_name.endswith(
        (".", " ")
    ):
        raise InputError(
            "--model-name: a model's name is a folder's name, of letters, digits, spaces and "
            f". _ + = - only and not beginning with a dot; received {model_name!r}"
        )
    folder = base / OUTPUT_FOLDER / model_name
    if resume and not (folder / CHECKPOINT).is_file():
        raise InputError(f"--resume: {folder} holds no interrupted run; received {model_name!r}")
    if folder.exists() and not overwrite and not resume:
        interrupted = (folder / CHECKPOINT).is_file()
        way_on = "--resume goes on with its interrupted run, or " if interrupted else ""
        raise InputError(
            f"--model-name: {model_name!r} is taken ({folder}); {way_on}"
            f"--overwrite replaces it, or choose another name"
        )
    return folder


def prepare_data(config: Config) -> Data:
    """Check the scans, bring the cache up to date, and load the examples."""
    cache_dir = config.base / config.cache.cache_dir
    folders = [config.base / d for d in config.cache.dicom_dirs]
    if not folders:
        raise InputError("dicom_dirs: name at least one folder with labelled DICOMs; received []")
    scans = find_labelled_dicoms(folders, exclude=cache_dir)
    split = choose_split([path.stem for path in scans], config.split)
    report = build_cache(scans, config.cache, base=config.base)
    examples = [load_example(path, config.cache.objects) for path in report.paths]
    return Data(split, {example.scan_id: example for example in examples})


def start_state(config: Config, device: torch.device) -> TrainingState:
    """Return a network with fresh weights and what trains it, all drawn from the seed."""
    torch.manual_seed(config.training.seed)
    network = build_network(config.network, len(config.cache.objects)).to(device)
    return start_training(network, config.training, config.curriculum)


def train(state: TrainingState, config: Config, data: Data) -> Iterator[EpochRecord]:
    """Run fit() with a progress bar."""
    scans = to_tensors(data.of(data.split.train_ids), config.intensity)
    val = to_tensors(data.of(data.split.val_ids), config.intensity)
    epochs = fit(
        state,
        scans,
        val,
        config.training,
        config.curriculum,
        config.augmentation,
        config.network.heatmap_stride,
    )
    done = len(state.records)
    with tqdm(total=config.training.num_epochs, initial=done, unit="epoch", desc="train") as bar:
        for record in epochs:
            if (end := state.last_epoch(config.training)) is not None:
                bar.total = end  # the curriculum has settled: now the end is known
            bar.set_postfix_str(
                f"sigma {record.sigma_voxels:.2f}, loss {record.train.kl_nats:.3f}/"
                f"{record.val.kl_nats:.3f}, error {record.val.error_voxels:.2f} voxels"
            )
            bar.update()
            yield record


def best_locator(state: TrainingState, config: Config) -> Locator:
    """Return the weights of the best validation error, with what using them needs."""
    network = build_network(config.network, len(config.cache.objects))
    network.load_state_dict(state.best_weights)
    return Locator(
        network=network.to(next(state.network.parameters()).device).eval(),
        network_config=config.network,
        downsampled_size=config.cache.downsampled_dicom_size,
        intensity=config.intensity,
        objects=config.cache.objects,
        sigma_voxels=state.records[state.best_epoch - 1].sigma_voxels,
    )


def test(
    locator: Locator,
    state: TrainingState,
    config: Config,
    data: Data,
    folder: Path,
    baselines: Mapping[str, PointFinder],
) -> Result:
    """Locate the objects in the test scans, beside what needs no network."""
    names = list(config.cache.objects)
    scans = data.of(data.split.test_ids)
    finders = {"mean_position": mean_position(data.of(data.split.train_ids)), **baselines}
    evaluated = {key: evaluate_positions(scans, find, names) for key, find in finders.items()}
    result = evaluate_positions(scans, lambda e: locator.predict(e.image).points_voxels, names)
    best = state.records[state.best_epoch - 1]
    summary: dict[str, Any] = {
        "name": folder.name,
        "scans": {
            "train": list(data.split.train_ids),
            "validation": list(data.split.val_ids),
            "test": list(data.split.test_ids),
        },
        "epochs": len(state.records),
        "best_epoch": state.best_epoch,
        "final_sigma_voxels": state.records[-1].sigma_voxels,
        "best_sigma_voxels": best.sigma_voxels,
        "validation_error_voxels": best.val.error_voxels,
        "validation_error_mm": best.val.error_mm,
        "test_error": _in_units(result),
        **{f"{key}_error": _in_units(value) for key, value in evaluated.items()},
        "test_scans": [
            {
                "scan": e.scan_id,
                "object": e.object_name,
                "error_downsampled_voxels": e.error_downsampled_voxels,
                "error_full_size_voxels": e.error_full_size_voxels,
                "error_mm": e.error_mm,
                "predicted_voxels_zyx": e.predicted_voxels.tolist(),
                "truth_voxels_zyx": e.truth_voxels.tolist(),
            }
            for e in result.errors
        ],
    }
    return Result(folder, result, evaluated, summary)


def write_outputs(
    result: Result, locator: Locator, state: TrainingState, config: Config, data: Data
) -> None:
    """Write the pictures and tables of a finished run."""
    folder, records = result.folder, state.records
    sigma = config.curriculum
    threshold = sigma.threshold if sigma.trigger == "loss" else None
    losses = plot_losses(
        records,
        loss=config.training.loss,
        threshold=threshold,
        minimum_sigma_voxels=sigma.minimum_sigma_voxels,
    )
    save_figure(losses, folder / "losses.png")
    save_figure(plot_metrics(records), folder / "metrics.png")
    save_figure(plot_sigma(records), folder / "sigma.png")
    for split, ids in (("train", data.split.train_ids), ("val", data.split.val_ids)):
        picture = predicted_picture(data.examples[ids[0]], locator, SPLIT_TITLES[split])
        save_figure(picture, folder / f"{split}_heatmap_pred.png")
    # of several test scans the worst: the one that is worth looking at
    worst = result.test.worst()
    example = data.examples[worst.scan_id]
    write_test_pictures(folder, locator, example, worst, config.crop.crop_size)
    write_metrics_csv(folder / "metrics.csv", records)
    write_json(folder / "summary.json", result.summary)


SPLIT_TITLES = {"train": "Training", "val": "Validation"}


def log_epoch(
    run: TrackedRun,
    folder: Path,
    config: Config,
    data: Data,
    state: TrainingState,
    record: EpochRecord,
) -> None:
    """Log an epoch's numbers; where sigma changed, also show the new target and the prediction."""
    run.log_epoch(record)
    before = [r.sigma_voxels for r in state.records[-2:-1]]
    if before == [record.sigma_voxels]:
        return
    stride = config.network.heatmap_stride
    example = data.examples[data.split.train_ids[0]]
    picture = target_picture(example, record.sigma_voxels, stride, f"Epoch {record.epoch}")
    name = f"heatmap_epoch_{record.epoch}_sigma_{record.sigma_voxels:.2f}.png"
    run.log_heatmap(picture, "heatmap/train", record.epoch)
    save_figure(picture, folder / name)
    locator = best_locator(state, config)
    example = data.examples[data.split.val_ids[0]]
    seen = predicted_picture(example, locator, f"Validation, epoch {record.epoch}")
    run.log_heatmap(seen, "heatmap/val", record.epoch)


def _log_inputs(run: TrackedRun, folder: Path, config: Config, data: Data) -> None:
    """Keep what the run starts from: settings, split, data, and how the first targets look."""
    write_text(folder / "config.yml", config.as_yaml())
    run.log_file(folder / "config.yml")
    split = {"train": data.split.train_ids, "val": data.split.val_ids, "test": data.split.test_ids}
    run.log_dict({key: list(ids) for key, ids in split.items()}, "split.json")
    run.log_dataset(split, {scan_id: e.key for scan_id, e in data.examples.items()})
    stride = config.network.heatmap_stride
    for name in ("train", "val"):
        example = data.examples[split[name][0]]
        sigma = max(config.curriculum.initial_sigma_voxels, config.curriculum.minimum_sigma_voxels)
        picture = target_picture(example, sigma, stride, SPLIT_TITLES[name])
        save_figure(picture, folder / f"{name}_heatmap_example.png")


def _log_results(run: TrackedRun, result: Result, model: Path) -> None:
    """Log the summary's numbers flat, every file, and the model."""
    numbers = {
        "epochs": result.summary["epochs"],
        "best_epoch": result.summary["best_epoch"],
        "final_sigma_voxels": result.summary["final_sigma_voxels"],
        "seconds_total": result.summary["seconds"],
    }
    for key in ("test", *result.baselines):
        for unit, value in result.summary[f"{key}_error"].items():
            if value is not None:
                numbers[f"{key}_error_{unit}"] = value
    run.log_summary(numbers)
    for path in sorted(result.folder.iterdir()):
        if path.name != CHECKPOINT and path.is_file():
            run.log_file(path, "outputs")
    run.log_locator(model)


def _in_units(evaluation: Evaluation) -> dict[str, float | None]:
    units = ("downsampled_voxels", "full_size_voxels", "mm")
    return {unit: evaluation.mean(unit) for unit in units}


def _make_folder(folder: Path, *, keep: bool) -> None:
    """Make the run's folder; of a run that is replaced, only jawloc's own files go."""
    folder.mkdir(parents=True, exist_ok=True)
    if keep:
        return
    own = ("*.png", "*.csv", "*.json", "*.pth", "*.yml", CHECKPOINT)
    for pattern in own:
        for path in folder.glob(pattern):
            path.unlink()
