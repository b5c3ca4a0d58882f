"""What the processes of --workers do first: Dask calls `dask_setup` in each as it starts."""

from __future__ import annotations

import signal


def dask_setup(_worker: object) -> None:
    """Leave Ctrl-C, which a terminal sends to all its processes, to the command.

    It has the tasks that are under way come to an end before it ends their processes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
