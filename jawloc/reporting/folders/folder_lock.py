"""One process at a time for a folder of results; the claim ends when its process does.

Two things make a claim, both beside what they guard. The operating system's lock on `*.lock` ends
with its process whatever ends it, on Linux across the machines that share a network drive too. The
lease, `*.lease`, says who holds the claim, and its time is renewed every few seconds: it counts
alone where a drive has no locks, and where the drive's locks don't reach other machines.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jawloc.errors import InputError
from jawloc.reporting.folders.lease import Held, Holder, read_lease, renew_lease, take_lease

try:
    import fcntl
except ImportError:  # not on Windows, where the lease has to do
    fcntl = None  # type: ignore[assignment]

# How long a lease from elsewhere is watched for a sign of life: where the lock is free its process
# is gone, unless locks don't reach that machine; without locks there is nothing else to go by.
PATIENCE_SECONDS, PATIENCE_WITHOUT_LOCKS_SECONDS = 20.0, 60.0
# the last where a network drive wants a file opened for writing, which another user's is not
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF}
_held: dict[Path, tuple[int, int]] = {}  # place -> process and thread
_descriptors: set[int] = set()


@contextmanager
def only_process(place: Path, what: str) -> Iterator[None]:
    """Hold a claim for as long as the block lasts; a claim within the same claim is granted.

    Parameters
    ----------
    place : path without an ending, of the files `*.lock` and `*.lease`; both go in the end.
    what : begins the refusal: what is in use, and where.

    Raises
    ------
    InputError
        If another process, or another thread, holds the claim; or the files can't be written.
    """
    me = (os.getpid(), threading.get_ident())
    if _held.get(place) == me:
        yield
        return
    try:
        lock = _lock(place)
    except Held as error:
        raise InputError(f"{what} {_by(error.holder)}") from None
    except OSError as error:
        raise InputError(
            f"{what} can't be locked against other processes; {place.parent}: {error.strerror}"
        ) from error
    _held[place] = me
    ended = threading.Event()
    renewing = threading.Thread(
        target=renew_lease, args=(_lease(place), lock.holder, ended), name="lease", daemon=True
    )
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        del _held[place]
        _release(place, lock)


def _by(holder: Holder | None) -> str:
    who = "another process"
    if holder is not None:
        who = f"process {holder.pid} on {holder.host} since {holder.since}"
    return f"is in use by {who}; wait until that ends, or choose another"


# Taking and giving back


@dataclass(frozen=True)
class _Lock:
    holder: Holder
    descriptor: int | None  # None: the drive has no locks


def _lease(place: Path) -> Path:
    return place.with_name(f"{place.name}.lease")


def _lock(place: Path) -> _Lock:
    """Take the claim; raise Held if another has it."""
    descriptor = _lock_file(place)
    try:
        patience = PATIENCE_WITHOUT_LOCKS_SECONDS if descriptor is None else PATIENCE_SECONDS
        return _Lock(take_lease(_lease(place), patience), descriptor)
    except BaseException:
        _close(descriptor)
        raise


def _release(place: Path, lock: _Lock) -> None:
    if read_lease(_lease(place)) == lock.holder:
        _lease(place).unlink(missing_ok=True)
    if lock.descriptor is not None:
        # before it is let go of: whoever waits for this very file notices that it is gone
        place.with_name(f"{place.name}.lock").unlink(missing_ok=True)
    _close(lock.descriptor)
    if place.parent.name == ".locks":
        with suppress(OSError):  # others are in it
            place.parent.rmdir()


def _lock_file(place: Path) -> int | None:
    """Lock the lock file; return its descriptor, or None where there are no locks."""
    path = place.with_name(f"{place.name}.lock")
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            return None
        try:
            descriptor = _open(path)
        except FileNotFoundError:  # the last one tidied the folder away
            continue
        _descriptors.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):  # it went with its last holder, and guards nothing
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except OSError as error:
            _close(descriptor)
            if error.errno in _NO_LOCKS:
                with suppress(OSError):
                    path.unlink()
                return None
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise Held(read_lease(_lease(place))) from None
            raise
        _close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's, whose process was killed
        return os.open(path, os.O_RDONLY)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        _descriptors.discard(descriptor)
        os.close(descriptor)


def _close_in_fork() -> None:
    """Let a copy of this process not hold the lock: it would outlive what it was copied from."""
    for descriptor in list(_descriptors):
        with suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
