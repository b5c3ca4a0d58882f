"""Many scans at once, in threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from jawloc.scans.averaging import one_blas_thread
from jawloc.scans.cores import usable_cores


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
