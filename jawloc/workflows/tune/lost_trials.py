"""The trials of a study: which count, which are left to do, and what becomes of lost ones.

A trial that was lost (its worker was killed) or interrupted is queued again with the same values,
and no longer counts itself. All others count, failed ones too.
"""

from __future__ import annotations

import os
import socket
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

# what is used of it is what its own loop uses, and a user can't do anything about it
warnings.filterwarnings("ignore", category=ExperimentalWarning)

WORKER = "worker"  # a trial's attribute: who runs it


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Have a lost trial's values tried once more."""
    trial.user_attrs = {}  # they are of the run that was lost
    RetryHeartbeatStaleTrialCallback()(study, trial)


def replaced(trials: Sequence[FrozenTrial]) -> set[int]:
    """Return the numbers of the trials that were lost and queued again."""
    return {n for t in trials for n in RetryHeartbeatStaleTrialCallback.retry_history(t)}


def counting(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials without those that were lost and queued again."""
    again = replaced(trials)
    return [t for t in trials if t.number not in again]


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that came to an end of their own: complete, pruned or failed."""
    return [t for t in counting(study.get_trials(deepcopy=False)) if t.state.is_finished()]


def queue_unheard_of(study: optuna.Study) -> None:
    """Queue the trials of machines that a database hears no more of again."""
    optuna.storages.fail_stale_trials(study)


def is_under_way(study: optuna.Study) -> bool:
    """Say whether some worker is in the middle of a trial."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def to_start(study: optuna.Study, wanted: int) -> int:
    """Return how many trials have still to be started, those under way left out."""
    begun = [t for t in counting(study.get_trials(deepcopy=False)) if t.state != TrialState.WAITING]
    return wanted - len(begun)


# Who runs them


@contextmanager
def worker_token(folder: Path) -> Iterator[str]:
    """Yield a name that shows, as long as this process lives, that its trials are being run."""
    token = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path = _token_path(folder, token)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path):
            yield token
    finally:
        path.unlink(missing_ok=True)


def recover_lost(study: optuna.Study, folder: Path) -> list[FrozenTrial]:
    """Queue the trials of this machine's dead workers again, and return these trials."""
    lost = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        token = trial.user_attrs.get(WORKER)
        if token is None or not _is_dead(_token_path(folder, token)):
            continue
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        ended = study.get_trials(deepcopy=True)[trial.number]
        queue_again(study, ended)
        lost.append(ended)
        _token_path(folder, token).unlink(missing_ok=True)
    return lost


def _token_path(folder: Path, token: str) -> Path:
    return folder / "workers" / f"{token}.lock"


def _is_dead(path: Path) -> bool:
    """Say whether nobody holds a token's lock any more; of other machines' nothing is known."""
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False
