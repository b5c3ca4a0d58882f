"""One trial: settings from the study, one training per fold, the error back to the study."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory

import optuna
import torch
from optuna import Trial, TrialPruned
from optuna.trial import TrialState

from jawloc.config import Config
from jawloc.errors import InputError, TrainingError
from jawloc.heatmaps.curriculum import at_the_end
from jawloc.inference.quantities import short
from jawloc.reporting.tracking.runs import TrackedRun, tracked_run
from jawloc.reporting.tracking.views import KIND, STATE, STUDY
from jawloc.scans.cache import ExampleFile
from jawloc.training.dataset import ScanTensors, load_scans
from jawloc.training.device import choose_device
from jawloc.training.intensity import IntensityConfig
from jawloc.training.loop import TrainingState, planned_training
from jawloc.workflows.describe_run import tag_inputs
from jawloc.workflows.prepare_data import Data, prepare_data
from jawloc.workflows.train import draw_epoch, log_epoch, log_inputs, start_state, train
from jawloc.workflows.tune.describe_study import OBJECTIVE, UNIT, describe_trial, trial_name
from jawloc.workflows.tune.lost_trials import WORKER, queue_again
from jawloc.workflows.tune.search_space import Space
from jawloc.workflows.tune.study import StudyConfig

# They make a trial fail, and the study goes on: its settings may be to blame.
FAILURES = (TrainingError, InputError, MemoryError, RuntimeError)
UNFINISHED = "running"  # the state of a trial, or study, until it ends
FULL_SIZE_READ = "full_size_scans_read"
# The share of the epochs before which no pruner is asked. While sigma shrinks it is larger, as an
# error at a wide sigma tells little about the error at a narrow one.
PRUNE_AFTER, PRUNE_SHRINKING_AFTER = 0.25, 0.5
# How often the median pruner compares a trial. Each time it stops about half of the trials that are
# as good as the others, so that every epoch would be too often (see experiments/log.md).
MEDIAN_COMPARISONS = 5


@dataclass(frozen=True)
class Task:
    """What every worker of a study works on.

    `whole_epochs` are those of a whole training, where the trials are shorter.
    """

    config: Config
    space: Space
    study: StudyConfig
    parent_run_id: str
    whole_epochs: int | None = None

    def training_options(self, best_file: str) -> list[str]:
        """Return the options of `jawloc-train` with which it trains with the best settings."""
        name = quote(f"best-{self.study.name}")
        epochs = [] if self.whole_epochs is None else [f"--set num_epochs={self.whole_epochs}"]
        return [f"--model-name {name}", f"--experiment {quote(best_file)}", *epochs]


@dataclass
class Worker:
    """What a worker keeps between its trials, above all the scans as the last trial used them."""

    task: Task
    data: Data
    full_size_scans_read: int
    token: str
    tell: Callable[[str], object]  # called with the current activity
    loaded: tuple[tuple[IntensityConfig, bool], ScanTensors] | None = None

    def scans(self, config: Config, data: Data) -> ScanTensors:
        """Return the training and validation scans of a fold, or of all, as a config needs them.

        Those of all folds are loaded at once, and again if the config's intensity or mask
        supervision is not the last trial's.
        """
        wanted = config.intensity, config.network.mask_supervision is True
        if self.loaded is None or self.loaded[0] != wanted:
            # free the memory first; the exception of a pruned or failed trial holds it in a cycle
            self.loaded = None
            gc.collect()
            training = self.task.config.training
            examples = [*self._files().values()]
            objects = config.cache.objects if wanted[1] else None
            scans = load_scans(examples, config.intensity, training.memory_budget_gb, objects)
            self.loaded = wanted, scans
        number = {key: index for index, key in enumerate(self._files())}
        chosen = data.select(sorted((*data.split.train_ids, *data.split.val_ids)))
        return self.loaded[1].take([number[file.scan_id, file.key] for file in chosen])

    def _files(self) -> dict[tuple[str, str], ExampleFile]:
        """Return the examples that train or validate in any trial, by scan id and key."""
        files = sorted(self.data.files().items())
        return {name: file for name, file in files if name[0] not in self.data.split.test_ids}


def set_up(task: Task, token: str, tell: Callable[[str], object]) -> Worker:
    """Find the examples in the cache and load all scans that trials use."""
    data = prepare_data(task.config, folds=task.study.folds, warn=False)
    worker = Worker(task, data, data.full_size_scans_read, token, tell)
    worker.scans(task.config, data)  # an error here is no trial's fault
    return worker


def run_trial(study: optuna.Study, worker: Worker, asked: Callable[[], None]) -> None:
    """Run the study's next trial, and queue it again if it is interrupted.

    `asked` is called as soon as the study counts the trial as begun.
    """
    number = None

    def objective(trial: Trial) -> float:
        nonlocal number
        number = trial.number
        trial.set_user_attr(WORKER, worker.token)
        asked()
        return _try(trial, worker)

    try:
        study.optimize(objective, n_trials=1, catch=FAILURES)
    except BaseException:
        # interrupted, or the tracking store is gone: the settings are not to blame
        for trial in study.get_trials(states=(TrialState.FAIL,)):
            if trial.number == number:
                queue_again(study, trial)
        raise


def _try(trial: Trial, worker: Worker) -> float:
    task = worker.task
    trial.set_user_attr(FULL_SIZE_READ, worker.full_size_scans_read)
    worker.full_size_scans_read = 0  # counted once
    config = task.space.apply(task.config, task.space.suggest(trial))
    named = task.study.name, trial.number, trial.params
    with tracked_run(
        config.base,
        trial_name(*named),
        params=config.compared_params(also=task.space.parameters),
        tags={STUDY: task.study.name, STATE: UNFINISHED, KIND: "trial"},
        parent_run_id=task.parent_run_id,
    ) as run:
        trial.set_user_attr("mlflow_run_id", run.run_id)
        run.log_summary({"trial": trial.number})
        try:
            error: float | None = _error_over_folds(trial, worker, config, run)
        except TrialPruned:
            error = None
        except (KeyboardInterrupt, SystemExit):
            run.tag({STATE: "interrupted"})
            raise
        except FAILURES as failure:
            reason = _reason(failure)
            trial.set_user_attr("reason", reason)
            run.tag({STATE: "failed", "optuna.reason": reason})
            describe_trial(run, *named, f"failed, {reason}")
            raise
        run.tag({STATE: "pruned" if error is None else "complete"})
        run.log_summary({OBJECTIVE: error})
        ended = (
            "stopped by the pruner" if error is None else f"validation error {short(error)} {UNIT}"
        )
        describe_trial(run, *named, ended)
    if error is None:  # after the run, which a pruned trial ends as finished
        raise TrialPruned
    return error


def _reason(failure: BaseException) -> str:
    first_line = str(failure).strip().partition("\n")[0]
    if isinstance(failure, MemoryError | torch.OutOfMemoryError):
        return "; ".join(filter(None, ("out of memory", first_line)))
    return first_line or type(failure).__name__


def _error_over_folds(trial: Trial, worker: Worker, config: Config, run: TrackedRun) -> float:
    """Return the validation error of the best weights, averaged over the folds."""
    study = worker.task.study
    tag_inputs(run, config, worker.data, "trial", choose_device(config.training.device))
    if study.folds is None:
        return _train(trial, worker, config, worker.data, run, compare_epochs=True)
    errors: list[float] = []
    for number, data in enumerate(worker.data.folds, start=1):
        with tracked_run(
            config.base,
            f"{study.name} trial {trial.number} fold {number}",
            params=config.compared_params(),
            tags={STUDY: study.name},
            parent_run_id=run.run_id,
        ) as fold:
            tag_inputs(fold, config, worker.data, "fold", choose_device(config.training.device))
            errors.append(_train(trial, worker, config, data, fold, compare_epochs=False))
        run.log_summary({f"fold_{number}_error_voxels": errors[-1]})
        # Wilcoxon's test pairs folds, the other pruners compare means
        pairs = study.pruner == "wilcoxon"
        trial.report(errors[-1] if pairs else sum(errors) / number, number)
        if number < study.folds and trial.should_prune():
            run.tag({"optuna.folds": str(number)})
            if not pairs:
                raise TrialPruned
            break  # as this pruner asks for: the mean until now is the trial's value
    return sum(errors) / len(errors)


def _train(
    trial: Trial, worker: Worker, config: Config, data: Data, run: TrackedRun, compare_epochs: bool
) -> float:
    """Train on one split and log it as `jawloc-train` does, until the pruner stops it."""
    device = choose_device(config.training.device)
    state = start_state(config, device)
    earlier = trial.user_attrs.get("epochs", 0)
    with TemporaryDirectory() as folder:
        log_inputs(run, Path(folder), config, data)
        scans = worker.scans(config, data)
        epochs = planned_training(config.training, len(data.split.train_ids)).num_epochs
        for record in train(state, config, data, loaded=scans, progress=False):
            log_epoch(run, state, draw_epoch(Path(folder), config, data, state))
            trial.set_user_attr("epochs", earlier + record.epoch)
            worker.tell(f"trial {trial.number}: epoch {record.epoch} of {epochs}")
            if compare_epochs:  # by the best error until now, which varies less than each epoch's
                trial.report(min(r.val.error_voxels for r in state.records), record.epoch)
                due = is_comparison_due(worker.task.study.pruner, record.epoch, epochs)
                if due and _may_be_compared(state, config, epochs) and trial.should_prune():
                    raise TrialPruned
    run.log_summary({"validation_error_downsampled_voxels": state.best_error_voxels})
    return state.best_error_voxels


def is_comparison_due(pruner: str, epoch: int, epochs: int) -> bool:
    """Return whether a trial of so many epochs is compared with others after one of them."""
    return pruner != "median" or epoch % max(1, epochs // MEDIAN_COMPARISONS) == 0


def _may_be_compared(state: TrainingState, config: Config, epochs: int) -> bool:
    done = len(state.records) / epochs
    position = config.curriculum.per_stage(len(state.curricula))[-1]
    ended = at_the_end(position, state.records[-1].sigma_voxels)
    return done >= (PRUNE_AFTER if ended else PRUNE_SHRINKING_AFTER)
