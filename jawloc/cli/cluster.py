"""The options that have a command's work done by several processes, or on several machines."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from jawloc.cli.options import option_under

if TYPE_CHECKING:
    from jawloc.workflows.cluster import ClusterOptions

processes = option_under("Several processes or machines")
scheduler_option = processes(
    "--scheduler",
    metavar="ADDRESS",
    help="Address (tcp://host:port) of a running Dask scheduler whose workers do the work.  "
    "[default: none]",
)


def takes_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Add --scheduler, --workers and --worker-memory, and pass them to the command as `cluster`."""

    @scheduler_option
    @processes(
        "--workers",
        type=int,
        metavar="N",
        help="Number of processes on this machine that do the work, with one thread each.  "
        "[default: this process alone]",
    )
    @processes(
        "--worker-memory",
        metavar="SIZE",
        help="Largest memory of each of these processes, for instance 8GB.  [default: an equal "
        "share of this machine's]",
    )
    @functools.wraps(command)
    def run(
        scheduler: str | None, workers: int | None, worker_memory: str | None, **others: Any
    ) -> None:
        command(cluster=cluster_options(scheduler, workers, worker_memory), **others)

    return run


def cluster_options(
    scheduler: str | None, workers: int | None = None, worker_memory: str | None = None
) -> ClusterOptions | None:
    """Return where tasks run; None for this process. The device is what the user asked for."""
    if scheduler is None and workers is None and worker_memory is None:
        return None
    from jawloc.workflows.cluster import ClusterOptions

    device = click.get_current_context().params.get("device", "auto")
    return ClusterOptions(scheduler, workers, worker_memory, device)
