"""Worker threads for work on many scans at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from jawloc.scans.averaging import one_blas_thread


@contextmanager
def worker_threads(wanted: int, tasks: int) -> Iterator[ThreadPoolExecutor]:
    """Open a pool of threads, no more than are wanted, than there are tasks, or cores.

    Threads suffice, without a second interpreter's memory and start: reading, averaging and
    hashing all let go of the interpreter lock. When the block ends early, by Ctrl-C or an error,
    tasks that haven't begun are dropped instead of being waited for.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = max(1, min(wanted, tasks, cores or 1))
    with one_blas_thread():
        pool = ThreadPoolExecutor(threads, thread_name_prefix="scan")
        try:
            yield pool
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
