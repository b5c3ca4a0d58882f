"""What runs on a worker: one task after another, with what all tasks of a command share."""

from __future__ import annotations

import io
import os
import pickle
import platform
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import torch
from distributed import Reschedule, Worker, WorkerPlugin, get_worker
from distributed.worker import thread_state

from jawloc import __version__
from jawloc.errors import InputError
from jawloc.reporting.tracking.environment import environment
from jawloc.scans.progress import progress_hidden
from jawloc.training.device import choose_device
from jawloc.training.interruption import interrupted_by

# Of what a worker has by its own machine, what a command's own value takes the place of.
ENVIRONMENT = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
WAIT_SECONDS = 0.5  # for what tasks share, where a task is there before it
_one_at_a_time = threading.Lock()  # also on a worker with several threads: memory is for one scan


@dataclass(frozen=True)
class Outcome:
    """How a task ended; errors are part of it, so that Dask neither logs nor repeats them."""

    kind: Literal["done", "failed", "interrupted"]
    value: Any = None  # the result, or the exception
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Surroundings:
    """What a worker must have in common with the command whose tasks it works on."""

    versions: Mapping[str, str]
    folder: Path  # the current one
    device: str  # what the user asked for
    environment: Mapping[str, str]

    @classmethod
    def here(cls, device: str) -> Surroundings:
        """Return those of this process."""
        known = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
        return cls(versions(), Path.cwd(), device, known)

    def check(self) -> None:
        """Raise InputError if this process has other versions, or not the folder."""
        for name, wanted in self.versions.items():
            if (own := versions()[name]) != wanted:
                raise InputError(
                    f"--scheduler: every worker must have the command's version of {name}, "
                    f"{wanted}; one on {platform.node()} has {own}"
                )
        if not self.folder.is_dir():
            raise InputError(
                f"--scheduler: the current folder must be one that all machines share; "
                f"{platform.node()} has no {self.folder}"
            )


def versions() -> dict[str, str]:
    """Return the versions that decide whether results are the same."""
    major, minor, _ = platform.python_version_tuple()
    return {"jawloc": __version__, "Python": f"{major}.{minor}", "torch": torch.__version__}


def packed(function: Callable[[Any, Any], Any], shared: Any) -> bytes:
    """Return a function and what all tasks share as bytes, whatever device its tensors are on."""
    file = io.BytesIO()
    torch.save((function, shared), file, pickle_module=cloudpickle)
    return file.getvalue()


@dataclass
class SharedWork(WorkerPlugin):
    """What all tasks of a command share; each worker gets it once, one that comes later too."""

    name: str
    content: bytes  # from `packed`
    surroundings: Surroundings
    busy: bool = field(default=False, init=False)
    unpacked: tuple[Callable[[Any, Any], Any], Any] | None = field(default=None, init=False)

    def setup(self, worker: Worker) -> None:
        """Do nothing: what is wrong is told by the first task, whose result is waited for."""

    def work(self, item: Any) -> Any:
        """Do one task."""
        if self.unpacked is None:
            device = choose_device(self.surroundings.device)
            file = io.BytesIO(self.content)
            self.unpacked = torch.load(file, map_location=device, weights_only=False)
        function, shared = self.unpacked
        return function(shared, item)


def perform(name: str, item: Any) -> Outcome:
    """Do one task on this worker, and return how it ended."""
    plugin = get_worker().plugins.get(name)
    if not isinstance(plugin, SharedWork):
        time.sleep(WAIT_SECONDS)
        raise Reschedule
    with _one_at_a_time, warnings.catch_warnings(record=True) as told, progress_hidden():
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", DeprecationWarning)
        plugin.busy = True
        try:
            outcome = _perform(plugin, item)
        finally:
            plugin.busy = False
    return Outcome(outcome.kind, outcome.value, tuple(str(each.message) for each in told))


def _perform(plugin: SharedWork, item: Any) -> Outcome:
    here = plugin.surroundings
    try:
        # a relative path means what it means to the command
        here.check()
        # the next task may be another command's, or another person's
        with environment(here.environment), chdir(here.folder), interrupted_by(is_cancelled):
            return Outcome("done", plugin.work(item))
    except KeyboardInterrupt:
        return Outcome("interrupted")
    except Exception as error:
        return Outcome("failed", _portable(error))


def is_cancelled() -> bool:
    """Return whether nobody waits for this thread's task any more."""
    task = get_worker().state.tasks.get(thread_state.key)
    return task is None or task.state not in ("executing", "long-running")


def is_busy(name: str, dask_worker: Worker) -> bool:
    """Return whether a worker is in the middle of a command's task."""
    return bool(getattr(dask_worker.plugins.get(name), "busy", False))


def _portable(error: Exception) -> Exception:
    """Return an exception, or one with its traceback as text if it can't be sent as it is."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error
