"""Which process a run belongs to, and whether it still lives: tags of the run.

A process that is killed can't end its run. The host's name, the process's number and the time at
which it began tell a later command so, also once another process has that number.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

HOST, PROCESS, BEGAN = "jawloc.host", "jawloc.process", "jawloc.process_began"
INITIAL_NAMESPACE = 0xEFFFFFFC  # Linux's number of the process namespace outside all containers


def process_tags() -> dict[str, str]:
    """Return the tags of a run of this process."""
    number = os.getpid()
    return {HOST: host(), PROCESS: str(number), BEGAN: began(number) or ""}


def is_dead(tags: Mapping[str, str]) -> bool:
    """Return whether a run's process was one of this host and is gone; False where in doubt."""
    if tags.get(HOST) != host() or not tags.get(PROCESS, "").isdigit():
        return False
    number, known = int(tags[PROCESS]), tags.get(BEGAN)
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        pass
    now = began(number)
    # killed, and only its parent process doesn't know yet; or another process of that number
    return now == "" or bool(now and known and now != known)


def host() -> str:
    """Return this machine's name; in a container also that of its processes' own numbering."""
    name = socket.gethostname()
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # not Linux
        return name
    return name if namespace == INITIAL_NAMESPACE else f"{name}, processes of {namespace}"


def began(number: int) -> str | None:
    """Return when a process began, as a text; "" of one that has ended, None if that is unknown."""
    try:
        stat = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _began_by_ps(number)
    # the program's name, in brackets, may have spaces; then come state, 18 numbers and the time
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else f"{boot} {fields[18]}"


def _began_by_ps(number: int) -> str | None:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(number)]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=10, env=environment
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.fullmatch(r"(\S+)\s+(.+)", answer.stdout.strip())
    if found is None:
        return None
    return "" if found[1].startswith("Z") else " ".join(found[2].split())
