"""Tasks: handed out to workers, their results taken back, each exactly once."""

from __future__ import annotations

import os
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from jawloc.errors import InputError, one_line
from jawloc.workflows.cluster import Lost

if TYPE_CHECKING:
    from distributed import Client, Future

MOST_KILLERS = 2  # tasks that kill their workers alone, after which others are not tried again
MOST_SUBMITTED = 1000  # tasks that the scheduler knows of at once
ALONE = "alone"  # part of the key of a task beside which no other of the command is submitted
POLLING_SECONDS = 0.5
STOPPING_SECONDS = 30.0  # for tasks that are under way at an interruption
WAITING_SECONDS = 10.0  # without any worker, after which the user is told

Task = Callable[[Any, Any], Any]  # what all tasks share, and an item -> its result


@dataclass(frozen=True)
class Cluster:
    """Workers that can be reached; `scheduler` is None for those of this machine."""

    client: Client
    device: str
    scheduler: str | None = None

    def run(
        self,
        function: Task,
        shared: Any,
        items: Sequence[Any],
        *,
        idle: Callable[[], object] = lambda: None,
    ) -> Iterator[tuple[int, Any]]:
        """Yield the number of an item and its result, or a `Lost`, as soon as each is there.

        Parameters
        ----------
        function : called on a worker with what is shared, and an item
        idle : called now and then while no result comes

        Raises
        ------
        InputError
            If a worker can't be used: it lacks jawloc, has another version, or not the folder.
        ConnectionError
            If the scheduler is gone.
        Exception
            What `function` raises; the other tasks are cancelled.
        """
        with self._sharing(function, shared) as name:
            yield from self._results(name, items, idle)

    def elsewhere(
        self, function: Callable[[Any], Any], items: Sequence[Any], names: Sequence[str]
    ) -> Iterator[tuple[int, Any]]:
        """Call a function with each item on a worker; in place of a `Lost`, yield an InputError.

        `names` are those of the scans, with which the errors begin.
        """
        for number, result in self.run(_call, function, items):
            if isinstance(result, Lost):
                result = InputError(f"{names[number]}: {result.reason}")
            yield number, result

    @contextmanager
    def _sharing(self, function: Task, shared: Any) -> Iterator[str]:
        from jawloc.workflows.cluster.worker import SharedWork, Surroundings, packed

        name = f"jawloc-{uuid.uuid4().hex}"
        content = packed(function, shared)
        work = SharedWork(name, content, Surroundings.here(self.device))
        try:
            self.client.register_plugin(work, name=name)
        except Exception as error:  # of whatever a worker fails with
            raise InputError(
                "--scheduler: every worker must have the command's version of jawloc and its "
                f"packages; one answers {one_line(error)}"
            ) from error
        try:
            yield name
        finally:
            with suppress(OSError, TimeoutError, RuntimeError, KeyError, ValueError):
                self.client.unregister_worker_plugin(name)

    def _results(
        self, name: str, items: Sequence[Any], idle: Callable[[], object]
    ) -> Iterator[tuple[int, Any]]:
        from jawloc.workflows.cluster.worker import perform

        finished: SimpleQueue[Future] = SimpleQueue()
        running: dict[Future, int] = {}
        numbers = iter(range(len(items)))
        suspected: deque[int] = deque()  # tried again alone, when all others are done
        watch, killers = _Watch(self), 0

        def submit(key: tuple[str | int, ...], number: int) -> None:
            future = self.client.submit(perform, name, items[number], key=key, pure=False)
            running[future] = number
            future.add_done_callback(finished.put)

        try:
            while True:
                while len(running) < MOST_SUBMITTED and (n := next(numbers, None)) is not None:
                    submit((name, n), n)
                if not running and suspected:
                    submit((name, suspected[0], ALONE), suspected[0])
                if not running:
                    return
                try:
                    future = finished.get(timeout=POLLING_SECONDS)
                except Empty:
                    watch.look()
                    idle()
                    continue
                result = self._result(future)
                number = running.pop(future)
                alone = bool(suspected) and number == suspected[0]
                future.release()
                if isinstance(result, Lost) and not alone:
                    # its workers may have been killed by other tasks that they held
                    suspected.append(number)
                    continue
                if alone:
                    suspected.popleft()
                    killers += isinstance(result, Lost)
                yield number, result
                while suspected and killers >= MOST_KILLERS:
                    yield suspected.popleft(), Lost(NOT_TRIED)
        finally:
            if running:
                self._stop(name, [*running])

    def _result(self, future: Future) -> Any:
        """Return a task's result or a Lost; raise what it raised."""
        from distributed import CancelledError, KilledWorker

        try:
            outcome = future.result()
        except KilledWorker as error:
            deaths = error.allowed_failures + 1
            return Lost(f"{deaths} workers were killed while they worked on it; {NOT_ENOUGH}")
        except CancelledError as error:
            self._lost_scheduler(error)
        except OSError as error:
            self._lost_scheduler(error)
        except Exception as error:
            raise InputError(
                "--scheduler: every worker must have the command's version of jawloc and its "
                f"packages; one answers {one_line(error)}"
            ) from error
        for message in outcome.warnings:
            warnings.warn(message, stacklevel=2)
        if outcome.kind == "failed":
            raise outcome.value
        if outcome.kind == "interrupted":  # by whoever runs the worker
            raise KeyboardInterrupt
        return outcome.value

    def _lost_scheduler(self, error: Exception) -> NoReturn:
        where = self.scheduler or "this machine"
        raise ConnectionError(
            f"the Dask scheduler of {where} does not answer any more ({one_line(error)})"
        ) from error

    def _stop(self, name: str, futures: Sequence[Future]) -> None:
        """Cancel tasks, and wait for those that are under way to come to an end."""
        from jawloc.workflows.cluster.worker import is_busy

        with suppress(OSError, TimeoutError, RuntimeError):  # the scheduler is gone as well
            self.client.cancel(list(futures), force=True)
            until, told = time.monotonic() + STOPPING_SECONDS, False
            while time.monotonic() < until:
                if not any(self.client.run(is_busy, name, on_error="ignore").values()):
                    return
                if not told:
                    os.write(2, STOPPING)
                    told = True
                time.sleep(POLLING_SECONDS / 2)


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)


NOT_ENOUGH = "is there enough memory for it?"
NOT_TRIED = (
    f"its workers were killed, by it or by another task that they held; {MOST_KILLERS} others "
    f"killed theirs alone, so it was not tried again"
)
STOPPING = (
    f"\nstopping: what the workers are in the middle of ends first (at most "
    f"{STOPPING_SECONDS:.0f} s); once more stops at once\n"
).encode()


class _Watch:
    """Tells the user, once, if there has been no worker for a while."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.told = False
        self.next_look = time.monotonic() + WAITING_SECONDS

    def look(self) -> None:
        """Look whether there are workers, if it is time to."""
        if self.told or time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + WAITING_SECONDS
        with suppress(OSError, TimeoutError, RuntimeError):
            if not self.cluster.client.nthreads():
                self.told = True
                where = self.cluster.scheduler or "this machine"
                os.write(2, f"the Dask scheduler of {where} has no worker yet: waiting\n".encode())
