"""One process at a time for a folder of results; the lock ends when its process does.

Two locks of filelock lie beside what they guard. The operating system's, `*.lock`, ends with its
process whatever ends it, on Linux also across the machines that share a network drive. The lease,
`*.lease`, names its holder and is renewed while that lives: it counts alone on drives without
locks, and where locks don't reach other machines. filelock has no lock that is both and names its
holder when it refuses; that part is ours.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import psutil
from filelock import FileLock, SoftFileLease, Timeout

from jawloc.errors import InputError
from jawloc.scans.locks import NO_LOCKS

LEASE_SECONDS, RENEWAL_SECONDS = 60.0, 5.0
_MOMENT_SECONDS = 0.1  # for a lock whose last holder is just removing its file
_NO_LOCKS = {*NO_LOCKS, errno.EACCES}  # the last for another user's file
_held: dict[Path, tuple[int, int]] = {}  # place -> process and thread


@contextmanager
def exclusive_lock(place: Path, what: str) -> Iterator[None]:
    """Hold a lock for as long as the block lasts; within the block its thread may take it again.

    `place` is the path, without an ending, of the files `*.lock` and `*.lease`, which are removed
    again. Raises InputError, which begins with `what` is in use and where, if another process or
    thread holds the lock, or the files can't be written.
    """
    me = (os.getpid(), threading.get_ident())
    if _held.get(place) == me:
        yield
        return
    with ExitStack() as stack:
        try:
            _acquire(place, stack)
        except Timeout:
            raise InputError(
                f"{what} is in use by {_holder(place)}; wait until that ends, or choose another"
            ) from None
        except OSError as error:
            raise InputError(
                f"{what} can't be locked against other processes; {place.parent}: {error.strerror}"
            ) from error
        _held[place] = me
        stack.callback(_held.pop, place)
        yield


def living_holder(place: Path) -> str | None:
    """Return which process holds a lock; None if none does, or a killed one left its files.

    Nothing is locked for it. A process that was killed on another machine counts as alive until
    its lease has run out.
    """
    lease = _lease(place)
    owner = lease.owner
    try:
        age = time.time() - Path(lease.lock_file).stat().st_mtime
    except OSError:
        return None
    if owner is None or age > LEASE_SECONDS:
        return None
    if owner.hostname == socket.gethostname() and not psutil.pid_exists(owner.pid):
        return None
    return _holder(place)


def _acquire(place: Path, stack: ExitStack) -> None:
    """Take both locks, to be released by the stack; raise Timeout if another has one."""
    lock, lease = FileLock(_lock_path(place), fallback_to_soft=False), _lease(place)
    if place.parent.name == ".locks":
        stack.callback(_remove, place.parent.rmdir)
    while True:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            if has_locks := _acquire_lock(lock):
                stack.callback(lock.release)
            _acquire_lease(lease, has_locks)
        except FileNotFoundError:  # the last holder removed the folder
            continue
        # the file goes before its lock: who waits for this file notices that it is gone
        stack.callback(_remove, _lock_path(place).unlink)
        stack.callback(lease.release)
        _lock_path(place).touch()  # tells since when
        return


def _acquire_lock(lock: FileLock) -> bool:
    """Take the operating system's lock; return False where there are none."""
    try:
        lock.acquire(timeout=_MOMENT_SECONDS)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _acquire_lease(lease: SoftFileLease, has_locks: bool) -> None:
    """Take the lease, also that of a holder who is gone; watch one of another machine renew it."""
    try:
        lease.acquire(timeout=_MOMENT_SECONDS)
    except Timeout:
        owner = lease.owner
        if not has_locks and owner is not None and owner.hostname == socket.gethostname():
            raise  # a process that lives, though it may be stopped
        patience = LEASE_SECONDS + 2 * RENEWAL_SECONDS
        renewed = _renewal(Path(lease.lock_file))
        lease.acquire(timeout=patience, poll_interval=patience / 100, cancel_check=renewed)


def _renewal(path: Path) -> Callable[[], bool]:
    """Return what tells whether a lease was renewed since, by no clock of this machine."""

    def changed() -> int | None:
        with suppress(FileNotFoundError), path.open("rb") as file:  # opening asks a drive anew
            return os.fstat(file.fileno()).st_mtime_ns
        return None

    before = changed()
    return lambda: None not in (before, now := changed()) and now != before


def _holder(place: Path) -> str:
    owner = _lease(place).owner
    if owner is None:
        return "another process"
    host = owner.hostname.partition("?")[0]
    try:
        since = datetime.fromtimestamp(_lock_path(place).stat().st_mtime)
    except OSError:
        return f"process {owner.pid} on {host}"
    return f"process {owner.pid} on {host} since {since:%Y-%m-%d %H:%M:%S}"


def _lock_path(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")


def _lease(place: Path) -> SoftFileLease:
    path = place.with_name(f"{place.name}.lease")
    return SoftFileLease(path, lease_duration=LEASE_SECONDS, heartbeat_interval=RENEWAL_SECONDS)


def _remove(remove: Callable[[], None]) -> None:
    with suppress(OSError):  # others use it
        remove()
