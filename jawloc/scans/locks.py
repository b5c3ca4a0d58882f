"""Locks between processes, which end with their process, also on drives that have no locks."""

from __future__ import annotations

import errno
import math
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease

# What a drive without locks answers; EBADF where it wants a file opened for writing.
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF}
LEASE_SECONDS, RENEWAL_SECONDS = 60.0, 5.0
_POLL_SECONDS = 0.05


@contextmanager
def locked(
    path: Path,
    patience_seconds: float = math.inf,
    check: Callable[[], object] = lambda: None,
) -> Iterator[None]:
    """Hold a lock file; while another process has it, call `check` again and again.

    Where the drive has no locks, a lease beside it counts instead, which is renewed while its
    holder lives. Raise filelock.Timeout if the lock isn't free within the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    check()
    lock: BaseFileLock = FileLock(path, fallback_to_soft=False)
    try:
        _acquire(lock, patience_seconds, check)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        lease = path.with_suffix(".lease")
        lock = SoftFileLease(
            lease, lease_duration=LEASE_SECONDS, heartbeat_interval=RENEWAL_SECONDS
        )
        abandoned = _Abandoned(lease)

        def check_lease() -> None:
            check()
            abandoned.remove()

        _acquire(lock, patience_seconds, check_lease)
    try:
        yield
    finally:
        lock.release()


class _Abandoned:
    """A lease that may stay empty for as long as a lease lasts, and is then nobody's.

    Its holder was killed before it wrote its name: filelock waits for it for ever.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[tuple[int, int] | None, float] = None, 0.0

    def remove(self) -> None:
        empty, now = self._empty(self.path), time.monotonic()
        if empty is None or empty != self._seen[0]:
            self._seen = empty, now
        elif now - self._seen[1] >= LEASE_SECONDS:
            self._move_away(empty)

    def _move_away(self, seen: tuple[int, int]) -> None:
        aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
        with suppress(OSError):
            if self._empty(self.path) == seen:
                self.path.rename(aside)
                if self._empty(aside) != seen:  # another process was faster, and has begun
                    aside.rename(self.path)
                aside.unlink(missing_ok=True)

    @staticmethod
    def _empty(path: Path) -> tuple[int, int] | None:
        try:
            status = path.stat()
        except OSError:
            return None
        return (status.st_ino, status.st_mtime_ns) if status.st_size == 0 else None


def _acquire(lock: BaseFileLock, patience_seconds: float, check: Callable[[], object]) -> None:
    def stopped() -> bool:
        check()  # ends the waiting by what it raises
        return False

    forever = patience_seconds == math.inf
    lock.acquire(
        timeout=-1 if forever else patience_seconds,
        poll_interval=_POLL_SECONDS,
        cancel_check=stopped,
    )
