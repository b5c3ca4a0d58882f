"""What follows the last epoch of a training: locator -> test -> report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jawloc.config import Config
from jawloc.inference.calibrate import calibrate
from jawloc.inference.evaluate_scan import PointFinder, evaluate_positions, mean_position
from jawloc.inference.held_out_errors import held_out_errors
from jawloc.inference.locator import Locator, save_locator
from jawloc.inference.mask_share import choose_mask_shares, shares_of
from jawloc.inference.metrics import PositionErrors
from jawloc.reporting.correction_text import summarise_corrections
from jawloc.reporting.summary import summarise_run
from jawloc.reporting.tracking.runs import TrackedRun
from jawloc.scans.progress import named_steps
from jawloc.training.loop import TrainingState
from jawloc.training.presence_training import train_presence_classifier
from jawloc.training.provenance import record_network
from jawloc.training.splits import specimens_of
from jawloc.workflows.compare_models import compare_with_earlier
from jawloc.workflows.describe_run import describe_finished
from jawloc.workflows.log_training import best_locator, draw_results, log_results
from jawloc.workflows.prepare_data import Data

if TYPE_CHECKING:
    from jawloc.workflows.train import Job


def finish_training(
    run: TrackedRun, job: Job, state: TrainingState, seconds: Callable[[], float]
) -> dict[str, Any]:
    """Make and test the locator of a training, save it with its errors, draw and log everything.

    `seconds` returns how long the training has taken. Returns what summary.json says.
    """
    folder, config, data = job.folder, job.config, job.data
    with named_steps("finish", 4) as begin:
        begin("calibrating")
        locator = finish_locator(state, config, data, run.run_id)
        begin("testing")
        evaluations = evaluate_test_scans(locator, config, data, job.baselines)
        summary = summarise(job, state, evaluations, locator, seconds())
        errors = held_out_errors(summary)
        locator = replace(locator, errors=errors)
        save_locator(locator, folder / f"{folder.name}.pth")
        begin("drawing")
        draw_results(run, folder, locator, evaluations["test"], state, config, data)
        begin("logging")
        summary |= {"seconds": round(seconds(), 1), "run_id": run.run_id}
        summary["warnings"] = [] if errors is None else errors.warnings()
        log_results(run, folder, summary, state.records)
        describe_finished(run, folder, config, data, evaluations["test"], summary)
    return summary


def finish_locator(state: TrainingState, config: Config, data: Data, run_id: str) -> Locator:
    """Build and calibrate the locator with the best weights."""
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
            corrections=data.corrections,
        ),
    )
    return calibrate(locator, tested, chosen_by, trained_on, specimen_pattern=pattern)


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
    summary |= summarise_corrections(job.data.corrections, job.data.kept_out)
    tested = job.data.select(split.test_ids)
    summary |= compare_with_earlier(job.baselines, evaluations["test"], evaluations, tested)
    taught = any(file.has_mask for file in job.data.select(split.train_ids))
    shares = shares_of(locator) if taught else {}
    return {**summary, "mask_share": shares} if shares else summary
