"""Which process a run belongs to, and whether it still lives: tags of the run.

A process that is killed can't end its run. The host's name, the process's number and the time at
which it began tell a later command so, also once another process has that number.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import psutil

HOST, PROCESS, BEGAN = "jawloc.host", "jawloc.process", "jawloc.process_began"
INITIAL_NAMESPACE = 0xEFFFFFFC  # Linux's number of the process namespace outside all containers
CLOCK_SECONDS = 5.0  # by which the time at which a process began moves when clocks are set


def process_tags() -> dict[str, str]:
    """Return the tags of a run of this process."""
    process = psutil.Process()
    return {HOST: host(), PROCESS: str(process.pid), BEGAN: f"{process.create_time():.2f}"}


def is_dead(tags: Mapping[str, str]) -> bool:
    """Return whether a run's process was one of this host and is gone; False where in doubt."""
    if tags.get(HOST) != host():
        return False
    try:
        process, began = psutil.Process(int(tags[PROCESS])), float(tags[BEGAN])
        # killed, and only its parent process doesn't know yet; or another process of that number
        is_zombie = process.status() == psutil.STATUS_ZOMBIE
        return is_zombie or abs(process.create_time() - began) > CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True
    except (psutil.AccessDenied, KeyError, ValueError):  # nothing is known of it
        return False


def host() -> str:
    """Return this machine's name; in a container also that of its processes' own numbering."""
    name = socket.gethostname()
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # not Linux
        return name
    return name if namespace == INITIAL_NAMESPACE else f"{name}, processes of {namespace}"
