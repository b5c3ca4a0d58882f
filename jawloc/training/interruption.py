"""Ctrl-C, SIGTERM and SIGHUP, held back until what must not be cut in two is whole.

On a worker of a cluster no signal comes: there, whether the work is still wanted is asked.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_asked: ContextVar[Callable[[], bool]] = ContextVar("asked", default=lambda: False)


@contextmanager
def interrupted_by(asked: Callable[[], bool]) -> Iterator[None]:
    """Count this thread's work as interrupted, within the block, once `asked` returns true."""
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


def stop_if_interrupted() -> None:
    """Raise KeyboardInterrupt if this thread's work is interrupted without a signal."""
    if _asked.get()():
        raise KeyboardInterrupt


@contextmanager
def interruptions_held(*, say: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Hold the first interruption back until the block is done, then deliver it.

    Yields what tells whether one has come. `say` is called when it does; a second one is delivered
    at once. Only signals that a Python function handles are held, and only in the main thread: no
    other gets any; what `interrupted_by` names counts there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield _asked.get()
        stop_if_interrupted()
        return
    arrived: list[int] = []
    numbers = [n for n in signal.Signals if n.name in ("SIGINT", "SIGTERM", "SIGHUP")]
    handlers = {n: handler for n in numbers if callable(handler := signal.getsignal(n))}

    def hold(number: int, frame: object) -> None:
        arrived.append(number)
        if len(arrived) > 1:
            handlers[signal.Signals(number)](number, frame)  # type: ignore[arg-type]
        say()

    try:
        for number in handlers:
            signal.signal(number, hold)
        yield lambda: bool(arrived)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if len(arrived) == 1:
        signal.raise_signal(arrived[0])
