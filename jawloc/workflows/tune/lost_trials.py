"""Which trials of a study count, and how lost ones are tried again.

A trial that was lost (its worker was killed) or interrupted is queued again with the same values
and does not count. All others count, pruned and failed ones too.

Optuna queues a trial again (`RetryHeartbeatStaleTrialCallback`) and, in a database, finds the lost
ones by their heartbeats. What it has nothing for is here and in `workers.py`:

- worker tokens, because `JournalStorage`, the default, has no heartbeats;
- `to_start` and the lock around it, because `MaxTrialsCallback` is called only after a trial, so
  that several workers begin too many, and because it counts the trials that were queued again;
- the queueing of an interrupted trial, for which `Study.optimize` calls no callback.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

# Optuna's own loop uses the same parts, and a user can't do anything about it
warnings.filterwarnings("ignore", category=ExperimentalWarning)

WORKER = "worker"  # a trial's attribute: the token of the process that runs it
_TOKEN = re.compile(r"[\w.-]+-\d+-[0-9a-f]{8}")


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a lost trial's values again."""
    trial.user_attrs = {}  # they describe the lost run
    RetryHeartbeatStaleTrialCallback()(study, trial)


def replaced(trials: Sequence[FrozenTrial]) -> set[int]:
    """Return the numbers of the trials that were queued again."""
    return {n for t in trials for n in RetryHeartbeatStaleTrialCallback.retry_history(t)}


def counting(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials without those that were queued again."""
    trials = study.get_trials(deepcopy=False)
    again = replaced(trials)
    return [t for t in trials if t.number not in again]


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count and are complete, pruned or failed."""
    return [t for t in counting(study) if t.state.is_finished()]


def to_start(study: optuna.Study, wanted: int) -> int:
    """Return how many trials have still to be started."""
    return wanted - sum(t.state != TrialState.WAITING for t in counting(study))


def is_under_way(study: optuna.Study) -> bool:
    """Return whether a worker is in the middle of a trial."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


@contextmanager
def worker_token(folder: Path) -> Iterator[str]:
    """Yield a token whose file is locked as long as this process lives."""
    token = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    path = _token_path(folder, token)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path):
            yield token
    finally:
        path.unlink(missing_ok=True)


def asking(folder: Path) -> FileLock:
    """Return the lock under which a worker begins a trial and writes its token into it.

    Without it, two workers might both begin the last trial.
    """
    return FileLock(folder / "asking.lock")


def recover_lost(
    study: optuna.Study, folder: Path, *, heartbeats: bool = False
) -> list[FrozenTrial]:
    """Queue the trials of this machine's dead workers again, and return these trials.

    Without `heartbeats`, all workers share the folder, and a running trial without a token is one
    whose worker died before it wrote it.
    """
    lost = []
    with ExitStack() as held:  # a worker that begins meanwhile waits, and makes its file anew
        if not heartbeats:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(asking(folder))
        # before the trials are read, so that all of a dead worker's are among them
        dead = {path for path in (folder / "workers").glob("*.lock") if _take(path, held)}
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            token = trial.user_attrs.get(WORKER)
            never_named = token is None and not heartbeats
            # others may write into a study: what is no token of ours names no file
            ours = isinstance(token, str) and _TOKEN.fullmatch(token) is not None
            if never_named or (ours and _token_path(folder, token) in dead):
                with suppress(ValueError, UpdateFinishedTrialError):  # another process was faster
                    lost.append(study.tell(trial.number, state=TrialState.FAIL))
                    queue_again(study, lost[-1])
        for path in dead:
            path.unlink(missing_ok=True)
    return lost


def _token_path(folder: Path, token: str) -> Path:
    return folder / "workers" / f"{token}.lock"


def _take(path: Path, held: ExitStack) -> bool:
    """Take a token's lock if it is free; other machines' tokens are not in this folder."""
    if not path.is_file() or path.is_symlink():
        return False
    try:
        held.enter_context(FileLock(path, timeout=0))
    except Timeout:
        return False
    return True
