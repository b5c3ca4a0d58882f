"""Time contenders, each in a child process of its own, taking turns.

A contender is a function that prepares (imports, opens, draws its input) and returns the work to
be timed, itself a function without arguments::

    def by_scipy(path: Path) -> Work:
        from scipy import ndimage            # not timed
        volume = load(path)                  # not timed
        def work() -> dict[str, float]:      # timed
            return {"mean": float(ndimage.zoom(volume, 0.25).mean())}
        return work

    runs = measure({"scipy": partial(by_scipy, path), "start": ["jawloc", "--help"]}, repeats=5)
    rows = summarise(runs)

A list of words is a command instead, which is timed as a whole, the interpreter's start included.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

# The work; may return further numbers to report, by the name of their column.
Work = Callable[[], Mapping[str, float] | None]
Contender = Callable[[], Work] | Sequence[str]


@dataclass(frozen=True)
class Run:
    """One run of one contender.

    Attributes
    ----------
    contender : str
    seconds : float
        Wall time of the work alone; of a command, from its start to its end.
    cpu_seconds : float
        Processor time of all its threads: unlike the wall time, hardly moved by what else the
        machine does. Of a function, its own process's.
    peak_mb : float
        Largest resident memory of the process (10**6 bytes), imports included. Pages of
        memory-mapped files count, the page cache of files that were read does not.
    numbers : mapping
        What the work returned.
    """

    contender: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    numbers: Mapping[str, float] = field(default_factory=dict)


def measure(
    contenders: Mapping[str, Contender],
    repeats: int,
    *,
    before: Callable[[str], None] | None = None,
) -> list[Run]:
    """Run every contender `repeats` times, in turns, so that a busy minute hits all of them.

    Parameters
    ----------
    contenders : mapping from a name to a contender
        Functions must be importable (or a `functools.partial` of one), as they are sent to a
        fresh interpreter.
    repeats : int
    before : function, optional
        Called with the contender's name before each run, in this process.

    Raises
    ------
    RuntimeError
        If a contender fails; its own error is on standard error.
    """
    runs = []
    for turn in range(repeats):
        for name, contender in contenders.items():
            if before is not None:
                before(name)
            run = _run_function if callable(contender) else _run_command
            runs.append(run(name, contender))
            last = runs[-1]
            print(
                f"  {turn + 1}/{repeats} {name}: {last.seconds:.3f} s "
                f"({last.cpu_seconds:.3f} s of CPU), {last.peak_mb:.0f} MB",
                file=sys.stderr,
                flush=True,
            )
    return runs


def _run_function(name: str, prepare: Callable[[], Work]) -> Run:
    context = multiprocessing.get_context("spawn")  # a fork would inherit this process's memory
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(there, prepare))
    child.start()
    there.close()
    try:
        seconds, cpu_seconds, peak_mb, numbers = here.recv()
    except EOFError:
        child.join()
        raise RuntimeError(f"{name}: ended with exit code {child.exitcode}") from None
    child.join()
    return Run(name, seconds, cpu_seconds, peak_mb, numbers)


def _child(results: Connection, prepare: Callable[[], Work]) -> None:
    work = prepare()
    start, cpu_start = time.perf_counter(), time.process_time()
    numbers = work()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    results.send((seconds, cpu_seconds, _own_peak_mb(), dict(numbers or {})))


def _own_peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():
        # Linux counts into ru_maxrss what the parent held when it started this process.
        words = next(line for line in status.read_text().splitlines() if "VmHWM" in line).split()
        return int(words[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _run_command(name: str, words: Sequence[str]) -> Run:
    start = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{name}: {' '.join(words)} ended with exit code {child.returncode}")
    # Never less than what this process holds (see above), which is why it imports so little.
    peak_mb = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return Run(name, seconds, usage.ru_utime + usage.ru_stime, peak_mb)


def summarise(runs: Sequence[Run]) -> list[dict[str, object]]:
    """Return a row for each contender: median and range of its seconds, CPU, its largest peak.

    Numbers that the work returned become columns too, as medians.
    """
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys(run.contender for run in runs):
        own = [run for run in runs if run.contender == name]
        seconds = [run.seconds for run in own]
        row: dict[str, object] = {
            "contender": name,
            "seconds": statistics.median(seconds),
            "seconds_min": min(seconds),
            "seconds_max": max(seconds),
            "runs": len(own),
            "cpu_seconds": statistics.median(run.cpu_seconds for run in own),
            "peak_mb": max(run.peak_mb for run in own),
        }
        for key in own[0].numbers:
            row[key] = statistics.median(run.numbers[key] for run in own)
        rows.append(row)
    return rows


def with_ratios(
    rows: Sequence[Mapping[str, object]],
    *,
    column: str = "seconds",
    **against: str,
) -> list[dict[str, object]]:
    """Add a column of ratios for each row that the others are held against.

    ``with_ratios(rows, times_the_limit="reading the file")`` adds to every row its seconds
    divided by those of the row whose contender is ``reading the file``.
    """
    values = {str(row["contender"]): float(str(row[column])) for row in rows}
    return [
        {
            **row,
            **{name: values[str(row["contender"])] / values[to] for name, to in against.items()},
        }
        for row in rows
    ]
