"""Who works in a folder, as a file that is renewed while its process lives."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # old for what takes a moment: whoever began it was killed


@dataclass(frozen=True)
class Holder:
    """The process that holds a claim.

    Attributes
    ----------
    machine : what tells its processes' numbers from another machine's; "" where that isn't known
    born : when the process began, by that machine's clock: a number is used again
    token : of this claim alone
    """

    host: str
    pid: int
    since: str
    machine: str
    born: str
    token: str


class Held(Exception):
    """Another process has the claim; `holder` says which, where that could be read."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__("another process has it")
        self.holder = holder


def take_lease(path: Path, patience_seconds: float) -> Holder:
    """Write a lease where there is none, or only that of a process that is gone.

    Parameters
    ----------
    patience_seconds : how long a lease of another machine is watched for a sign of life

    Raises
    ------
    Held
        If another process lives that has it.
    """
    holder = _this_process()
    if _create(path, holder):
        return holder
    other = read_lease(path)
    if _lives(other, path, patience_seconds):
        raise Held(other)
    # of several that find it so, one takes it over
    guard = path.with_name(f"{path.name}.taken")
    with suppress(FileNotFoundError):
        if time.time() - guard.stat().st_mtime > STALE_SECONDS:
            guard.rmdir()  # whoever made it was killed just then
    try:
        guard.mkdir()
    except FileExistsError:
        raise Held(None) from None
    try:
        if read_lease(path) == other:
            path.unlink(missing_ok=True)
        if not _create(path, holder):
            raise Held(read_lease(path))
    finally:
        guard.rmdir()
    return holder


def _create(path: Path, holder: Holder) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            json.dump(asdict(holder), file)
    except FileExistsError:
        return False
    return True


def read_lease(path: Path) -> Holder | None:
    """Return whose a lease is; None if it is gone, or not a whole one (yet)."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def renew_lease(path: Path, holder: Holder, ended: threading.Event) -> None:
    """Show every few seconds that the holder lives, until the event."""
    while not ended.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):
            if read_lease(path) == holder:
                os.utime(path)


# Who lives


def _this_process() -> Holder:
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        machine=_machine(),
        born=_born(os.getpid()) or "",
        token=secrets.token_hex(8),
    )


def _machine() -> str:
    """Return what is the same for two processes only if they know each other's numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 - of a link's target
    except OSError:  # no Linux
        return ""


def _born(pid: int) -> str | None:
    """Return when a process of this machine began, "" if that is not to be known; None: gone."""
    try:
        # after the name, which may hold anything: the state, and as the 20th the time
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # dead, though its parent wasn't told yet
    except (OSError, IndexError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:  # another user's
            return ""
        return ""


def _lives(holder: Holder | None, path: Path, patience_seconds: float) -> bool:
    if holder is not None and holder.machine and holder.machine == _machine():
        return _born(holder.pid) in (holder.born, "")
    return _is_renewed(path, patience_seconds)


def _is_renewed(path: Path, patience_seconds: float) -> bool:
    """Watch a lease: that needs no clock which two machines share."""
    end, before = time.monotonic() + patience_seconds, None
    while True:
        try:
            with path.open("rb") as file:  # opening asks a network drive anew
                now = os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False
        if before is not None and now != before:
            return True
        if time.monotonic() > end:
            return False
        before = now
        time.sleep(min(0.5, patience_seconds / 10))
