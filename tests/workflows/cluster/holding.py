"""Workers that stop in the middle of a task until a test lets them go on.

These functions run on the workers.
"""

import os
import signal
import time
from pathlib import Path

SECONDS = 300  # a test's patience


def hold(folder: str, module: str, name: str) -> None:
    """Have a function of jawloc say that it began, and wait while the folder has a file `hold`."""
    import importlib

    place = importlib.import_module(module)
    whole = getattr(place, name)

    def held(*arguments, **options):
        with Path(folder, "begun").open("a") as file:
            file.write(f"{os.getpid()}\n")
        until = time.monotonic() + SECONDS
        while Path(folder, "hold").exists() and time.monotonic() < until:
            time.sleep(0.02)
        return whole(*arguments, **options)

    held.whole = whole
    setattr(place, name, held)


def let_go(module: str, name: str) -> None:
    """Put a function back."""
    import importlib

    place = importlib.import_module(module)
    setattr(place, name, getattr(getattr(place, name), "whole", getattr(place, name)))


def begun(folder: Path) -> list[int]:
    """Return the processes of the tasks that began, in their order."""
    path = folder / "begun"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def fill(_folder: Path, item: int) -> int:
    """Be a task: the second needs more memory than a worker may have."""
    held = bytearray(1_500_000_000) if item == 1 else bytearray(8)
    held[::4096] = b"x" * len(held[::4096])  # each page is there now
    time.sleep(1.0 if item == 1 else 0.0)
    return item


def double(folder: Path, item: int) -> int:
    """Be a task: kill its process, always (3) or once (5)."""
    once = folder / f"tried_{item}"
    if item == 3 or (item == 5 and not once.exists()):
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item
