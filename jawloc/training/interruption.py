"""Ctrl-C, SIGTERM and SIGHUP, held back until what must not be cut in two is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptions_held(*, say: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Hold the first interruption back until the block is done, then deliver it.

    Yields what tells whether one has come. `say` is called when it does; a second one is delivered
    at once. Only signals that a Python function handles are held, and only in the main thread: no
    other gets any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
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
