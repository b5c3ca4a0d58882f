"""Many scans at once: worker threads, and locks between processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from jawloc.scans.averaging import one_blas_thread
from jawloc.scans.cores import usable_cores

_LOCK_POLL_SECONDS = 0.5


@contextmanager
def worker_threads(wanted: int, tasks: int) -> Iterator[ThreadPoolExecutor]:
    """Open a pool of at most `wanted` threads, one a task and a core at most.

    Threads suffice, without a second interpreter's memory and start: reading, averaging and
    hashing all release the interpreter lock. When the block ends early, by Ctrl-C or an error,
    tasks that haven't begun are dropped instead of being waited for.
    """
    threads = max(1, min(wanted, tasks, usable_cores()))
    with one_blas_thread():
        pool = ThreadPoolExecutor(threads, thread_name_prefix="scan")
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def locked(path: Path, patience_seconds: float, check: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; while another process has it, call `check` every half second.

    Raise filelock.Timeout if the lock isn't free within the time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    waited = 0.0
    while True:
        check()
        try:
            lock.acquire(timeout=min(_LOCK_POLL_SECONDS, patience_seconds))
            break
        except Timeout:
            waited += _LOCK_POLL_SECONDS
            if waited > patience_seconds:
                raise
    try:
        yield
    finally:
        lock.release()
