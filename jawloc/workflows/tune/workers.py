"""The processes that run a study's trials, and the one that starts and replaces them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, NoReturn

import optuna

from jawloc.errors import InputError, TrainingError
from jawloc.reporting.tracking.runs import end_lost_run
from jawloc.reporting.tracking.views import STATE
from jawloc.workflows.tune.lost_trials import (
    asking,
    finished,
    is_under_way,
    recover_lost,
    replaced,
    to_start,
    worker_token,
)
from jawloc.workflows.tune.study import load, reachable, refuse_other_scans
from jawloc.workflows.tune.trial import UNFINISHED, Task, run_trial, set_up

POLLING_SECONDS = 0.5
MOST_LOSSES = 3  # of workers in a row, without a finished trial between them


def work(
    task: Task, deadline: float, number: int = 0, tell: Callable[[str], object] = lambda _: None
) -> None:
    """Run trials until the study has as many as wanted, or the deadline (Unix time) is over.

    `number` is the worker's on this machine; `tell` is called after every epoch with the current
    activity, and after every trial with "".
    """
    if time.time() >= deadline:  # loading the scans takes a while
        return
    study, folder = load(task.study, task.config, number), task.study.folder(task.config.base)
    begins = asking(folder)
    with reachable(task.study), worker_token(folder) as token:
        worker = set_up(task, token, tell)
        refuse_other_scans(study, worker.data.fingerprint())
        while time.time() < deadline:
            try:
                begins.acquire()  # inside, or an interruption right behind it would keep the lock
                optuna.storages.fail_stale_trials(study)  # before the trials are counted
                if to_start(study, task.study.trials) > 0:
                    run_trial(study, worker, asked=begins.release)
                    tell("")
                    continue
            finally:
                begins.release(force=True)
            # another machine's trial may be lost; for this machine's there is `recover`
            if not (task.study.is_in_a_database and is_under_way(study)):
                return
            time.sleep(POLLING_SECONDS)


def supervise(task: Task, deadline: float, tell: Callable[[str], object]) -> None:
    """Start workers, replace those that die, and return when all have ended.

    A worker's InputError or TrainingError is raised here; a TrainingError also if workers die one
    after the other.
    """
    workers = [_start(task, deadline, number) for number in range(task.study.workers)]
    study = load(task.study, task.config)
    losses, done = 0, len(finished(study))
    try:
        while workers:
            connection.wait([worker.process.sentinel for worker in workers], POLLING_SECONDS)
            tell("")
            for worker in [w for w in workers if not w.process.is_alive()]:
                workers.remove(worker)
                _raise_error_of(worker)
                if worker.process.exitcode == 0:
                    continue
                recover(task)
                now = len(finished(study))
                losses, done = (1 if now > done else losses + 1), now
                if losses >= MOST_LOSSES:
                    raise TrainingError(
                        f"{losses} workers in a row died without a finished trial (the last with "
                        f"exit code {worker.process.exitcode}); is there enough memory for "
                        f"--workers {task.study.workers}?"
                    )
                workers.append(_start(task, deadline, worker.number + task.study.workers))
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()
    tell("")


def recover(task: Task) -> None:
    """Queue the trials of dead workers again, and end their runs as failed."""
    study = load(task.study, task.config)
    folder, heartbeats = task.study.folder(task.config.base), task.study.is_in_a_database
    recover_lost(study, folder, heartbeats=heartbeats)
    trials = study.get_trials(deepcopy=False)
    for number in replaced(trials):  # some by another machine
        if (run_id := trials[number].user_attrs.get("mlflow_run_id")) is not None:
            tags = {STATE: "lost", "optuna.reason": "worker died"}
            end_lost_run(task.config.base, run_id, tags, unfinished=UNFINISHED)


class _Worker(NamedTuple):
    number: int
    process: BaseProcess
    errors: connection.Connection


def _start(task: Task, deadline: float, number: int) -> _Worker:
    # a fresh interpreter: torch's threads and open databases don't survive a fork
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_work_here, args=(task, deadline, number, send))
    process.start()
    send.close()
    return _Worker(number, process, receive)


def _work_here(task: Task, deadline: float, number: int, errors: Any) -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _interrupt_once)
    try:
        work(task, deadline, number)
    except KeyboardInterrupt:
        os._exit(0)  # the trial is queued again, and the parent process reports it
    except (InputError, TrainingError, OSError) as error:
        errors.send((isinstance(error, TrainingError), str(error)))
        raise SystemExit(1) from None


def _interrupt_once(_signum: int, _frame: object) -> NoReturn:
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt


def _raise_error_of(worker: _Worker) -> None:
    try:
        in_training, message = worker.errors.recv()
    except EOFError:
        return
    raise (TrainingError if in_training else InputError)(message)
