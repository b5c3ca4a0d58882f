"""Memory, open files and threads of running processes, sampled from Linux's /proc; a picture."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
POLLING_SECONDS = 0.25
MEGABYTE = 1e6


@dataclass(frozen=True)
class Sample:
    """What a command and its children held at one moment."""

    done: int  # scans, or requests
    memory_mb: float  # resident
    files: int
    threads: int


@contextmanager
def watched(group: int, done: Callable[[], int]) -> Iterator[list[Sample]]:
    """Sample a process group while the block lasts; there is nothing to see without /proc."""
    samples, ended = list[Sample](), threading.Event()

    def watch() -> None:
        while not ended.wait(POLLING_SECONDS):
            if (sample := _sample(group, done())) is not None:
                samples.append(sample)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        ended.set()
        watcher.join()


def _sample(group: int, done: int) -> Sample | None:
    """Sum over the processes of a group; None if one ends meanwhile, or there is none."""
    try:
        members = [PROC / str(pid) for pid in _members(group)]
        status = [_status(place) for place in members]
        files = sum(len(list((place / "fd").iterdir())) for place in members)
        memory = sum(int(one["VmRSS"].split()[0]) for one in status) * 1024 / MEGABYTE
    except (OSError, KeyError):  # a zombie has no memory
        return None
    if not members:
        return None
    return Sample(done, memory, files, sum(int(one["Threads"]) for one in status))


def _members(group: int) -> Iterator[int]:
    for place in PROC.iterdir() if PROC.is_dir() else ():
        with suppress(OSError, ValueError):
            if os.getpgid(int(place.name)) == group:
                yield int(place.name)


def _status(place: Path) -> dict[str, str]:
    lines = (place / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    return {key: value for key, _, value in (line.partition(":") for line in lines)}


def between(samples: Sequence[Sample], first: int, last: int) -> list[Sample]:
    """Return the samples at which so many were done; at least the one nearest to the first."""
    found = [sample for sample in samples if first <= sample.done <= last]
    return found or [min(samples, key=lambda sample: abs(sample.done - first))]


def draw(path: Path, columns: Mapping[tuple[str, str], Sequence[Sample]]) -> None:
    """Draw memory, files and threads: a column for each (title, label of the x axis)."""
    from matplotlib import rc_context

    from jawloc.reporting.figures.style import STYLE, Colour, blank_chart, save_figure

    rows = {
        "memory (MB)": lambda sample: sample.memory_mb,
        "open files": lambda sample: sample.files,
        "threads": lambda sample: sample.threads,
    }
    colours = (Colour.BLUE, Colour.VERMILION, Colour.GREEN)
    with rc_context(STYLE):
        figure = blank_chart(8.0)
        panels = figure.subplots(len(rows), len(columns), squeeze=False, sharex="col")
        for i, ((title, label), samples) in enumerate(columns.items()):
            done = [sample.done for sample in samples]
            for axes, (name, value), colour in zip(
                panels[:, i], rows.items(), colours, strict=True
            ):
                axes.plot(done, [value(sample) for sample in samples], color=colour, linewidth=1)
                axes.set_ylabel(name)
                axes.set_ylim(bottom=0)
                axes.grid(alpha=0.3)
            panels[0, i].set_title(title, loc="left")
            panels[-1, i].set_xlabel(label)
        save_figure(figure, path)
