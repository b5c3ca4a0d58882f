"""Many scans at once, in threads; or wherever a caller has them worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from jawloc.scans.averaging import one_blas_thread
from jawloc.scans.cores import usable_cores

# Calls a function with each of some items in other processes, perhaps on other machines; yields the
# number of an item and the function's result, or an InputError if all processes that worked on it
# were killed, as soon as each is there. The function and the items can be pickled.
Elsewhere = Callable[
    [Callable[[Any], Any], Sequence[Any], Sequence[str]], Iterator[tuple[int, Any]]
]


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
