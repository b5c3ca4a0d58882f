"""A study's trials on the workers of a cluster.

The study's storage decides what is tried, as everywhere: a task is a worker that asks it for one
trial after the other. Dask gives the task of a killed worker to another one, which first queues the
lost trial again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from jawloc.errors import TrainingError
from jawloc.training.interruption import stop_if_interrupted
from jawloc.workflows.cluster import Lost
from jawloc.workflows.cluster.tasks import Cluster
from jawloc.workflows.tune.lost_trials import finished, to_start
from jawloc.workflows.tune.study import load
from jawloc.workflows.tune.trial import Task
from jawloc.workflows.tune.workers import recover, work


@dataclass(frozen=True)
class Trials:
    """What every worker needs; the deadline is a Unix time."""

    task: Task
    deadline: float


def work_on_cluster(
    task: Task, deadline: float, tell: Callable[[str], object], cluster: Cluster
) -> None:
    """Run trials on a cluster until the study has as many as wanted, or the deadline is over.

    Raises
    ------
    TrainingError
        If workers die without a finished trial between them.
    """
    study = load(task.study, task.config)
    while (rest := to_start(study, task.study.trials)) > 0 and time.time() < deadline:
        done, lost = len(finished(study)), ""
        # As many as can be of use; those for which no trial is left end at once.
        shared, numbers = Trials(task, deadline), range(rest)
        for _, result in cluster.run(trials_task, shared, numbers, idle=lambda: tell("")):
            if isinstance(result, Lost):
                lost = result.reason
            tell("")
        recover(task)
        if lost and len(finished(study)) == done:
            raise TrainingError(f"no trial was finished: {lost}")
    tell("")


def trials_task(shared: Trials, number: int) -> None:
    """Run trials on this worker, until the study has no more to begin or the deadline is over."""
    if time.time() >= shared.deadline:
        return
    task = shared.task
    recover(task)  # of a worker that was killed
    if to_start(load(task.study, task.config), task.study.trials) > 0:
        work(task, shared.deadline, number, tell=lambda _: stop_if_interrupted())
