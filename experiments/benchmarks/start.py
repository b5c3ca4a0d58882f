"""Start: how soon `--help` answers, and how soon `jawloc-train` is in its first epoch.

    python experiments/benchmarks/start.py    # 3 minutes, and once 2 more to draw phantoms

The first epoch has begun when its progress bar appears: `jawloc-train` runs in a terminal of its
own (a pty), and the clock stops when "train: 0%" comes out of it, which is printed once imports,
checks, cache and MLflow's run are behind it and before the first batch. Then it is stopped as
Ctrl-C would. Phantoms and caches are those of training.py.
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import statistics
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from contenders import measure, summarise, with_ratios
from reporting import RESULTS, ROOT, Bars, Table, report
from training_runs import BIG, SMALL, Size, make_task

WORK = ROOT / "dicoms" / "benchmarks"  # git ignores it
SCRIPTS = Path(sys.executable).parent  # where pip puts jawloc and jawloc-train
FIRST_EPOCH = re.compile(rb"train: +0%")
PATIENCE_SECONDS = 300.0
HELP_GOAL, TRAIN_GOAL = 0.3, 8.0  # seconds
EMPTY, CLICK = "limit: an empty Python", "limit: Python and click"
HELP_NOTE = f"Goal: each within {HELP_GOAL:g} s. Limit: the interpreter's start, with click."
TRAIN_NOTE = (
    f"Goal: in the first epoch within {TRAIN_GOAL:g} s. Limit: the import of PyTorch and MLflow, "
    "which training can't do without, and one reading of the cached scans."
)


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    runs = measure(_help_commands(), repeats=options.repeats)
    helped = with_ratios(summarise(runs), times_the_limit=CLICK)
    sizes = [SMALL] if options.quick else [SMALL, BIG]
    trained = [row for size in sizes for row in _training_rows(options, size)]
    tables = [
        Table(
            "help",
            "Seconds until --help has answered",
            helped,
            Bars("seconds", "wall time (s), median and range", limit=(HELP_GOAL, "goal")),
        ),
        Table(
            "train",
            f"Seconds from the start of jawloc-train to its first epoch, {options.scans} scans",
            trained,
            Bars("seconds", "wall time (s), median and range", limit=(TRAIN_GOAL, "goal")),
        ),
    ]
    quick = {"results": options.work / "results", "root": options.work}
    report(
        "start",
        tables,
        params={"scans": options.scans, "repeats": options.repeats},
        note=f"{HELP_NOTE} {TRAIN_NOTE}",
        **(quick if options.quick else {"results": RESULTS, "root": ROOT}),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--scans", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=7, help="of each --help; others get 3")
    parser.add_argument("--work", type=Path, default=WORK, help="phantoms and caches")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="6 scans on the small grid, each once; results stay in the work folder",
    )
    options = parser.parse_args()
    options.work = options.work.resolve()
    if options.quick:
        options.scans, options.repeats = 6, 2
    return options


def _help_commands() -> dict[str, Sequence[str]]:
    """Return what is timed: every command's --help, whatever commands there are, and limits."""
    from jawloc.cli import jawloc  # light: commands import what they need when they run

    script = str(SCRIPTS / "jawloc")
    commands: dict[str, Sequence[str]] = {
        EMPTY: [sys.executable, "-c", "pass"],
        CLICK: [sys.executable, "-c", "import click"],
    }
    for words in [(), *_command_words(jawloc, ())]:
        commands[" ".join(("jawloc", *words, "--help"))] = [script, *words, "--help"]
    for path in sorted(SCRIPTS.glob("jawloc-*")):
        commands[f"{path.name} --help"] = [str(path), "--help"]
    return commands


def _command_words(group: click.Group, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (*above, name)
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _command_words(command, (*above, name))


def _training_rows(options: argparse.Namespace, size: Size) -> list[dict[str, object]]:
    """Time the start of training on one grid, beside what it can't be faster than."""
    repeats = 1 if options.quick else 3
    config = make_task(options.work, options.scans, size)
    grid = "x".join(map(str, size))
    cached = sorted((config.parent / "dicoms").rglob("*.dcm"))
    seconds = [_seconds_to_first_epoch(config) for _ in range(repeats + 1)][1:]  # one to warm up
    code = (
        "import sys, pathlib, torch, mlflow; "
        "[pathlib.Path(path).read_bytes() for path in sys.argv[1:]]"
    )
    limit = f"limit, {grid}"
    words = [sys.executable, "-c", code, *map(str, cached)]
    limits = summarise(measure({limit: words}, repeats=repeats))
    row = {
        "contender": f"jawloc-train, {grid}",
        "seconds": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "runs": len(seconds),
    }
    return with_ratios([row, *limits], times_the_limit=limit)


def _seconds_to_first_epoch(config: Path) -> float:
    """Start jawloc-train in a terminal, wait for its first epoch, and stop it."""
    words = [SCRIPTS / "jawloc-train", "--config", config, "--model-name", "start", "--overwrite"]
    terminal, inside = pty.openpty()
    termios.tcsetwinsize(inside, (24, 100))  # a bar in a window without a width shows nothing
    started = time.perf_counter()
    child = subprocess.Popen(words, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    try:
        _wait_for(FIRST_EPOCH, terminal, started + PATIENCE_SECONDS)
        return time.perf_counter() - started
    finally:
        child.terminate()  # a job in the background ignores Ctrl-C
        _read_to_the_end(terminal)  # or it would wait for room to write in
        child.wait()
        os.close(terminal)


def _wait_for(words: re.Pattern[bytes], terminal: int, until: float) -> None:
    seen = b""
    while not words.search(seen):
        ready, _, _ = select.select([terminal], [], [], max(0.0, until - time.perf_counter()))
        part = _read(terminal) if ready else b""
        seen += part
        if not part:
            raise RuntimeError(f"jawloc-train did not get to its first epoch:\n{seen.decode()}")


def _read_to_the_end(terminal: int) -> None:
    while _read(terminal):
        pass


def _read(terminal: int) -> bytes:
    """Return what was written, nothing once the last writer is gone (an error, on Linux)."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


if __name__ == "__main__":
    main()
