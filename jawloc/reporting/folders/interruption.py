"""Interruptions that wait for the few lines that they must not tear apart."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # not every system has the last


@contextmanager
def interruptions_held() -> Iterator[None]:
    """Keep Ctrl-C and requests to end waiting until the block is done, then let them in.

    Only signals that Python code handles: an ignored one stays ignored, and one that ends the
    process does so at once. Outside the main thread, which alone gets signals, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    handlers = {n: signal.getsignal(n) for n in numbers if callable(signal.getsignal(n))}
    try:
        for number in handlers:
            signal.signal(number, lambda n, _: arrived.append(n))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in arrived[:1]:
        signal.raise_signal(number)
