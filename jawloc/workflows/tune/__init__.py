"""Tuning: a study of many short trainings that differ in a few settings, run by Optuna.

This module is the main path. `search_space.py` and `searchable_settings.py` hold what is searched,
`study.py` the study and its storage, `trial.py` one trial, `workers.py` the processes,
`cluster_workers.py` those of a cluster, `lost_trials.py` which trials count, and `study_report.py`
the results.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack

import optuna
from optuna.trial import TrialState

from jawloc.config import Config, change_config
from jawloc.config.sigmas import tell_sigmas
from jawloc.config.slow_settings import tell_slow_settings
from jawloc.errors import TrainingError
from jawloc.reporting.tracking.runs import TrackedRun, tracked_run
from jawloc.reporting.tracking.views import STATE, STUDY
from jawloc.scans.cores import usable_cores
from jawloc.scans.progress import Progress
from jawloc.training.device import choose_device
from jawloc.workflows.cluster import ClusterOptions
from jawloc.workflows.cluster.client import reach_cluster
from jawloc.workflows.describe_run import tag_inputs
from jawloc.workflows.prepare_data import prepare_data
from jawloc.workflows.tune.cluster_workers import work_on_cluster
from jawloc.workflows.tune.lost_trials import finished
from jawloc.workflows.tune.search_space import Space
from jawloc.workflows.tune.study import (
    StudyConfig,
    known_threads,
    one_at_a_time,
    open_study,
    reachable,
    search_definition,
)
from jawloc.workflows.tune.study_report import TuneResult, report_study
from jawloc.workflows.tune.trial import UNFINISHED, Task
from jawloc.workflows.tune.workers import recover, supervise, work

PARENT = "mlflow_run_id"  # the study's attribute with the id of its run


def tune(
    config: Config,
    space: Space,
    study: StudyConfig,
    cluster: ClusterOptions | None = None,
    whole_epochs: int | None = None,
) -> TuneResult:
    """Begin a study or go on with it, until it has as many trials as wanted.

    `whole_epochs` are those of a whole training, where the trials are shorter.

    Raises
    ------
    InputError
        A mistake in the space, the scans or the storage, or a study of something else.
    TrainingError
        Workers that die one after the other.
    """
    space = space.with_initial_sigma(config)
    space.check(config)
    tell_sigmas(config.curriculum, config.network, config.requested)
    tell_slow_settings(config, config.requested)
    # fills the cache that all trials share
    data = prepare_data(config, folds=study.folds)
    with ExitStack() as stack:
        with one_at_a_time(study, config):
            config = _with_threads(config, study, on_cluster=cluster is not None)
            definition = search_definition(config, space, study, data.fingerprint())
            opened = open_study(study, config, definition, space.default(config))
            run = stack.enter_context(
                tracked_run(
                    config.base,
                    study.name,
                    params=config.compared_params() | study.as_params(),
                    tags={STUDY: study.name},
                    run_id=opened.user_attrs.get(PARENT),
                )
            )
            opened.set_user_attr(PARENT, run.run_id)
        tag_inputs(run, config, data, "study", choose_device(config.training.device))
        run.tag({STATE: UNFINISHED})
        task = Task(config, space, study, run.run_id, whole_epochs)
        with reachable(study):
            recover(task)
            try:
                _run(task, opened, cluster)
            except BaseException as error:
                interrupted = isinstance(error, KeyboardInterrupt)
                run.tag({STATE: "interrupted" if interrupted else "failed"})
                if interrupted or isinstance(error, TrainingError):
                    _report(task, opened, run)
                raise
            result = _report(task, opened, run)
            run.tag({STATE: "complete"})
            return result


def _report(task: Task, opened: optuna.Study, run: TrackedRun) -> TuneResult:
    with one_at_a_time(task.study, task.config):
        recover(task)
        return report_study(opened, task, run)


def _with_threads(config: Config, study: StudyConfig, *, on_cluster: bool) -> Config:
    """Divide the cores among the workers, with the same number for all trials of a study.

    A cluster's worker has one.

    The number of threads decides how sums are rounded, and small differences grow in a training:
    trials with other numbers can't be compared.
    """
    threads = known_threads(study, config)
    if config.training.cpu_threads or threads == 0:
        return config
    if threads is None:
        if not on_cluster and choose_device(config.training.device).type != "cpu":
            return config
        threads = 1 if on_cluster else max(1, usable_cores() // study.workers)
    return change_config(config, {"cpu_threads": threads}, source="--workers")


def _run(task: Task, opened: optuna.Study, cluster: ClusterOptions | None) -> None:
    """Run what is left of the study, here or in other processes, with a progress bar."""
    wanted, timeout = task.study.trials, task.study.timeout_seconds
    deadline = math.inf if timeout is None else time.time() + timeout
    done = len(finished(opened))
    with Progress(total=wanted, initial=done, unit="trial", desc="tune") as bar:

        def tell(activity: str) -> None:
            trials = finished(opened)
            errors = [t.value for t in trials if t.state == TrialState.COMPLETE]
            best = f"best {min(errors):.3f} voxels" if errors else ""
            bar.update(len(trials) - bar.n)
            bar.set_postfix_str(", ".join(filter(None, (best, activity))))

        tell("")
        if bar.n >= wanted:
            return
        try:
            if cluster is not None:
                with reach_cluster(cluster) as reached:
                    work_on_cluster(task, deadline, tell, reached)
            elif task.study.workers == 1:
                work(task, deadline, tell=tell)
            else:
                supervise(task, deadline, tell)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "interrupted; the same command goes on with the study, the interrupted trial "
                "included"
            ) from None
