"""One trial: settings from the study, a training for each fold, an error back to the study."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import torch
from optuna import Trial, TrialPruned
from optuna.trial import TrialState

from jawloc.config import Config
from jawloc.errors import InputError, TrainingError
from jawloc.heatmaps.curriculum import at_the_end
from jawloc.reporting.tracking.runs import TrackedRun, tracked_run
from jawloc.training.dataset import ScanTensors, load_scans
from jawloc.training.intensity import IntensityConfig
from jawloc.training.loop import TrainingState
from jawloc.training.network import choose_device
from jawloc.training.splits import choose_folds
from jawloc.workflows.prepare_data import Data, prepare_data
from jawloc.workflows.train import log_epoch, log_inputs, start_state, train
from jawloc.workflows.tune.lost_trials import WORKER, queue_again
from jawloc.workflows.tune.search_space import Space
from jawloc.workflows.tune.study import StudyConfig

# What makes a trial fail, with the study going on: it says something of the settings tried.
FAILURES = (TrainingError, InputError, MemoryError, RuntimeError)
STATE = "optuna.state"  # a run's tag
FULL_SIZE_READ = "full_size_scans_read"
# An error at a wide sigma says little of what it will be at a narrow one: until sigma is at its
# end, or so large a share of the epochs is over, no pruner is asked.
PRUNE_AFTER = 0.25


@dataclass(frozen=True)
class Task:
    """What every worker of a study must know."""

    config: Config
    space: Space
    study: StudyConfig
    parent_run_id: str


@dataclass
class Worker:
    """What a worker keeps between its trials: the scans, as the last trial wanted them."""

    task: Task
    data: Data
    full_size_scans_read: int
    token: str
    tell: Callable[[str], object]  # what is being done
    loaded: tuple[IntensityConfig, ScanTensors] | None = None

    def scans(self, intensity: IntensityConfig) -> ScanTensors:
        """Return all that trials train and validate on; loaded anew for another intensity."""
        if self.loaded is None or self.loaded[0] != intensity:
            # first, or both would be in memory; a trial that was pruned or failed is still held
            # by its exception, in a cycle
            self.loaded = None
            gc.collect()
            split, training = self.data.split, self.task.config.training
            examples = self.data.select(sorted((*split.train_ids, *split.val_ids)))
            scans = load_scans(examples, intensity, training.memory_budget_gb)
            self.loaded = intensity, scans
        return self.loaded[1]


def set_up(task: Task, token: str, tell: Callable[[str], object]) -> Worker:
    """Find the examples in the cache and load all that trials train and validate on."""
    data = prepare_data(task.config, folds=task.study.folds, warn=False)
    worker = Worker(task, data, data.full_size_scans_read, token, tell)
    worker.scans(task.config.intensity)  # what is wrong with them is no trial's fault
    return worker


def run_trial(study: optuna.Study, worker: Worker, asked: Callable[[], None]) -> None:
    """Ask the study for settings, try them and tell it what came of it.

    Parameters
    ----------
    asked : is called as soon as the study counts the trial as begun.

    Raises
    ------
    KeyboardInterrupt
        After the trial was queued again.
    """
    number: list[int] = []

    def objective(trial: Trial) -> float:
        number.append(trial.number)
        trial.set_user_attr(WORKER, worker.token)
        asked()
        return _try(trial, worker)

    try:
        study.optimize(objective, n_trials=1, catch=FAILURES)
    except BaseException:
        # interrupted, or no way to track it: nothing that the settings are to blame for
        for trial in study.get_trials(deepcopy=True):
            if number and trial.number == number[0] and trial.state == TrialState.FAIL:
                queue_again(study, trial)
        raise


def _try(trial: Trial, worker: Worker) -> float:
    task = worker.task
    trial.set_user_attr(FULL_SIZE_READ, worker.full_size_scans_read)
    worker.full_size_scans_read = 0  # said once
    config = task.space.apply(task.config, task.space.suggest(trial))
    pruned, error = False, math.nan
    with tracked_run(
        config.base,
        f"{task.study.name} {trial.number}",
        params=config.as_params(),
        tags={"optuna.study": task.study.name, STATE: "running"},
        parent_run_id=task.parent_run_id,
    ) as run:
        trial.set_user_attr("mlflow_run_id", run.run_id)
        run.log_summary({"trial": trial.number})
        try:
            error = _error_over_folds(trial, worker, config, run)
        except TrialPruned:
            pruned = True
        except (KeyboardInterrupt, SystemExit):
            run.tag({STATE: "interrupted"})
            raise
        except FAILURES as failure:
            reason = _reason(failure)
            trial.set_user_attr("reason", reason)
            run.tag({STATE: "failed", "optuna.reason": reason})
            raise
        run.tag({STATE: "pruned" if pruned else "complete"})
        if not pruned:
            run.log_summary({"objective_error_voxels": error})
    if pruned:
        raise TrialPruned
    return error


def _reason(failure: BaseException) -> str:
    text = str(failure).strip().splitlines()
    if isinstance(failure, MemoryError | torch.OutOfMemoryError):
        return f"out of memory; {text[0]}" if text else "out of memory"
    return text[0] if text else type(failure).__name__


def _error_over_folds(trial: Trial, worker: Worker, config: Config, run: TrackedRun) -> float:
    """Return the validation error of the weights that would be kept: the mean over the folds."""
    study = worker.task.study
    if study.folds is None:
        return _train(trial, worker, config, worker.data, run, compare_epochs=True)
    errors: list[float] = []
    folds = choose_folds(worker.data.split, study.folds, config.split.specimen_pattern)
    for number, split in enumerate(folds, start=1):
        with tracked_run(
            config.base,
            f"{study.name} {trial.number} fold {number}",
            params=config.as_params(),
            parent_run_id=run.run_id,
        ) as fold:
            data = replace(worker.data, split=split)
            errors.append(_train(trial, worker, config, data, fold, compare_epochs=False))
        run.log_summary({f"fold_{number}_error_voxels": errors[-1]})
        # Wilcoxon's test pairs folds, the others compare what is known so far
        pairs = study.pruner == "wilcoxon"
        trial.report(errors[-1] if pairs else sum(errors) / number, number)
        if number < study.folds and trial.should_prune():
            run.tag({"optuna.folds": str(number)})
            if not pairs:
                raise TrialPruned
            break  # as the pruner wants it: what is known already is the trial's value
    return sum(errors) / len(errors)


def _train(
    trial: Trial,
    worker: Worker,
    config: Config,
    data: Data,
    run: TrackedRun,
    *,
    compare_epochs: bool,
) -> float:
    """Train on one split, logged as `jawloc-train` does; stop where the pruner says so."""
    state = start_state(config, choose_device(config.training.device))
    earlier = trial.user_attrs.get("epochs", 0)
    with TemporaryDirectory() as folder:
        log_inputs(run, Path(folder), config, data)
        scans = worker.scans(config.intensity)
        for record in train(state, config, data, loaded=scans, progress=False):
            log_epoch(run, Path(folder), config, data, state)
            trial.set_user_attr("epochs", earlier + record.epoch)
            worker.tell(
                f"trial {trial.number}: epoch {record.epoch} of {config.training.num_epochs}"
            )
            if not compare_epochs:
                continue
            # the best until now: what counts in the end, and it never rises
            trial.report(min(r.val.error_voxels for r in state.records), record.epoch)
            if _may_be_compared(state, config) and trial.should_prune():
                raise TrialPruned
    run.log_summary({"validation_error_downsampled_voxels": state.best_error_voxels})
    return state.best_error_voxels


def _may_be_compared(state: TrainingState, config: Config) -> bool:
    done = len(state.records) / config.training.num_epochs
    position = config.curriculum.per_stage(len(state.curricula))[-1]
    return done >= PRUNE_AFTER or at_the_end(position, state.records[-1].sigma_voxels)
