"""The workers: a scheduler that runs somewhere, or processes that are started on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from jawloc.errors import InputError, one_line
from jawloc.workflows.cluster import LEAST_MEMORY_BYTES, ClusterOptions
from jawloc.workflows.cluster.tasks import Cluster

if TYPE_CHECKING:
    from distributed import Client

HERE = "127.0.0.1"  # the workers of --workers are reached from no other machine
CONNECT_SECONDS = 20
REPLACING_SECONDS = 30  # until a process that was killed has been replaced
MOST_DEATHS = 3  # of workers of --workers on one scan; another scheduler has its own number
SHARE_OF_MEMORY = 0.9
LOCAL_CONFIG = {
    "distributed.scheduler.allowed-failures": MOST_DEATHS - 1,
    # a worker holds the one task that it works on: no other is blamed for its death
    "distributed.scheduler.worker-saturation": 1.0,
    # a process that needs more than its limit is ended; it does not wait for memory that it holds
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.preload": ["jawloc.workflows.cluster.local_worker"],
    # no pages
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@contextmanager
def open_cluster(options: ClusterOptions | None) -> Iterator[Cluster | None]:
    """Do as `reach_cluster`; without options, yield None: all work is done in this process."""
    if options is None:
        yield None
        return
    with reach_cluster(options) as cluster:
        yield cluster


@contextmanager
def reach_cluster(options: ClusterOptions) -> Iterator[Cluster]:
    """Reach or start the workers, for as long as the block lasts.

    Raises
    ------
    InputError
        If the scheduler can't be reached, or the workers can't be started.
    """
    from distributed import Client

    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_config({"distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s"}))
        local = None if options.workers is None else stack.enter_context(_start(options))
        try:
            client: Client = stack.enter_context(
                Client(
                    local or options.scheduler,
                    timeout=CONNECT_SECONDS,
                    set_as_default=False,
                    name="jawloc",
                )
            )
        except (OSError, ValueError, TypeError) as error:  # refused, in vain, no certificate
            raise InputError(
                f"--scheduler: a Dask scheduler must answer at {options.scheduler}; "
                f"{one_line(error)}"
            ) from error
        try:
            yield Cluster(client, options.device, options.scheduler)
        finally:
            if options.workers is not None:  # Dask forgets a process that begins as the others end
                with suppress(OSError, TimeoutError, RuntimeError):
                    client.wait_for_workers(options.workers, timeout=REPLACING_SECONDS)


@contextmanager
def _start(options: ClusterOptions) -> Iterator[Any]:
    """Start workers on this machine, each with one thread and a limit of memory.

    They talk to each other by TLS with a key of their own: else every user of this machine could
    have them run code.
    """
    from distributed import LocalCluster, Security
    from distributed.system import MEMORY_LIMIT

    count = options.workers or 1
    memory = options.memory_bytes() or int(MEMORY_LIMIT * SHARE_OF_MEMORY / count)
    if memory < LEAST_MEMORY_BYTES:
        raise InputError(
            f"--workers: each needs 1 GB of memory at least; {count} would have "
            f"{memory / 1e9:.1f} GB each on this machine"
        )
    with (
        TemporaryDirectory(prefix="jawloc-workers-") as folder,
        _config(LOCAL_CONFIG),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host=HERE,
            dashboard_address=None,
            memory_limit=memory,
            local_directory=folder,
            silence_logs=logging.CRITICAL,
            security=Security.temporary(),
        ) as cluster,
    ):
        yield cluster


@contextmanager
def _config(values: dict[str, Any]) -> Iterator[None]:
    import dask

    with dask.config.set(values):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask's log, whose lines say in many words what a task's result says in one."""
    names = [n for n in logging.root.manager.loggerDict if n.partition(".")[0] == "distributed"]
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado", *names)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
