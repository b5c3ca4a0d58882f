"""Work on many scans in several processes, or on several machines, with Dask.

A scan is a task. Dask gives each task to a worker that is free, and to another one if that worker
is killed. `client.py` starts or reaches the workers, `tasks.py` hands out tasks and takes back
results, and `worker.py` is what runs on a worker. Dask is imported only where one of these is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec

from jawloc.errors import InputError

LEAST_MEMORY_BYTES = 1_000_000_000  # of a worker, which has imported PyTorch


@dataclass(frozen=True)
class ClusterOptions:
    """Where tasks run; an InputError names an option that can't be followed.

    Attributes
    ----------
    scheduler : address of a Dask scheduler that runs; None: workers on this machine
    workers : number of processes on this machine
    worker_memory : the largest memory of each, as text (8GB); None: an equal share
    device : what the user asked for, which each worker chooses by itself
    """

    scheduler: str | None = None
    workers: int | None = None
    worker_memory: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.scheduler is not None and self.workers is not None:
            raise InputError(
                "--scheduler has workers of its own and --workers starts some here; give only one"
            )
        if self.scheduler is not None and not re.fullmatch(
            r"(tcp|tls)://[^\s/]+:\d+", self.scheduler
        ):
            raise InputError(
                "--scheduler: an address like tcp://host:8786 or tls://host:8786; received "
                f"{self.scheduler!r}"
            )
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers: at least 1; received {self.workers}")
        if self.worker_memory is not None and self.workers is None:
            raise InputError("--worker-memory limits the processes of --workers; give both")
        if find_spec("distributed") is None:
            raise InputError(
                "--scheduler and --workers need Dask, which is not installed: pip install "
                "'jawloc[cluster]'"
            )
        self.memory_bytes()

    def memory_bytes(self) -> int | None:
        """Return the largest memory of a worker; None where none is given."""
        if self.worker_memory is None:
            return None
        from dask.utils import parse_bytes

        try:
            number = parse_bytes(self.worker_memory)
        except (ValueError, OverflowError):
            number = 0
        if number < LEAST_MEMORY_BYTES:
            raise InputError(
                "--worker-memory: at least 1GB, with its unit (8GB, 1500MB); received "
                f"{self.worker_memory!r}"
            )
        return number


@dataclass(frozen=True)
class Lost:
    """In place of a task's result: every worker that tried it was killed."""

    reason: str
