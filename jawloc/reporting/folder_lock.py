"""One process at a time for a folder of results; the claim ends when its process does.

Two things make a claim, both beside what they guard. The operating system's lock on `*.lock` ends
with its process whatever ends it, on Linux across the machines that share a network drive too. The
lease, `*.lease`, says who holds the claim, and its time is renewed every few seconds: it counts
alone where a drive has no locks, and where the drive's locks don't reach other machines.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from jawloc.errors import InputError

try:
    import fcntl
except ImportError:  # not on Windows, where the lease has to do
    fcntl = None  # type: ignore[assignment]

HEARTBEAT_SECONDS = 5.0
# How long a lease from elsewhere is watched for a sign of life: where the lock is free its process
# is gone, unless locks don't reach that machine; without locks there is nothing else to go by.
PATIENCE_SECONDS, PATIENCE_WITHOUT_LOCKS_SECONDS = 20.0, 60.0
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
_held: dict[Path, tuple[int, int]] = {}  # place -> process and thread
_descriptors: set[int] = set()


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
        target=_renew, args=(_lease(place), lock.holder, ended), name="lease", daemon=True
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
        return _Lock(_take_lease(_lease(place), patience), descriptor)
    except BaseException:
        _close(descriptor)
        raise


def _release(place: Path, lock: _Lock) -> None:
    if _read(_lease(place)) == lock.holder:
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
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the last one tidied the folder away
            continue
        _descriptors.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:  # it went with its last holder: that lock guards nothing
            pass
        except OSError as error:
            _close(descriptor)
            if error.errno in _NO_LOCKS:
                path.unlink(missing_ok=True)
                return None
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise Held(_read(_lease(place))) from None
            raise
        _close(descriptor)


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


def _take_lease(path: Path, patience_seconds: float) -> Holder:
    """Write a lease where there is none, or only that of a process that is gone."""
    holder = _this_process()
    if _create(path, holder):
        return holder
    other = _read(path)
    if _lives(other, path, patience_seconds):
        raise Held(other)
    # of several that find it so, one takes it over
    guard = path.with_name(f"{path.name}.taken")
    with suppress(FileNotFoundError):
        if time.time() - guard.stat().st_mtime > PATIENCE_WITHOUT_LOCKS_SECONDS:
            guard.rmdir()  # whoever made it was killed just then
    try:
        guard.mkdir()
    except FileExistsError:
        raise Held(None) from None
    try:
        if _read(path) == other:
            path.unlink(missing_ok=True)
        if not _create(path, holder):
            raise Held(_read(path))
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


def _read(path: Path) -> Holder | None:
    """Return whose a lease is; None if it is gone, or not a whole one (yet)."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _renew(path: Path, holder: Holder, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        with suppress(OSError):
            if _read(path) == holder:
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
