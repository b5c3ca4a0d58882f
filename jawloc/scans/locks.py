"""Locks between processes, which end with their process, also on drives that have no locks."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        lock = SoftFileLease(
            path.with_suffix(".lease"),
            lease_duration=LEASE_SECONDS,
            heartbeat_interval=RENEWAL_SECONDS,
        )
        _acquire(lock, patience_seconds, check)
    try:
        yield
    finally:
        lock.release()


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
