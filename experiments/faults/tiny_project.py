"""A project with tiny scans, the command line in this process, and disks that fail when asked."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import yaml
from campaign import Outcome

SCAN_SHAPE = (48, 24, 24)
SETTINGS: dict[str, Any] = {
    "downsampled_dicom_size": [24, 12, 12],
    "n_workers": 2,
    "initial_kernel_size": 4,
    "num_epochs": 3,
    "crop_size": [20, 20, 20],
    "network": {"channels": [4, 8], "stride": 2},
    "presence_classifier": {"steps": 1},
    # so large that every epoch is good enough for a narrower heatmap
    "curriculum": {"threshold": 100.0, "minimum_sigma": 1.5},
}


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said on standard error."""

    code: int
    error: str
    output: str = ""

    @property
    def sentence(self) -> str:
        """Return the sentence with which it refused to work, or ended; empty if there was none."""
        last = self.error.strip().splitlines()[-1:] or [""]
        return last[0].removeprefix("Error: ") if last[0].startswith("Error: ") else ""


def run(folder: Path, *words: object) -> Said:
    """Run a command line of jawloc in a folder, in this process."""
    from click.testing import CliRunner

    from jawloc.cli import jawloc

    before = Path.cwd()
    os.chdir(folder)
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        result = CliRunner().invoke(jawloc, [str(word) for word in words])
    finally:
        os.chdir(before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    error = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        error += f"\nTraceback: {result.exception!r}"
    return Said(result.exit_code, error, result.stdout)


def make_project(folder: Path, scans: Path, **settings: Any) -> Path:
    """Make a folder with settings for the scans of another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content = SETTINGS | {"dicom_dirs": [str(scans)]} | settings
    (folder / "userconf.yml").write_text(yaml.safe_dump({"jaw_loc_config": content}))
    return folder


def write_scans(folder: Path, number: int) -> Path:
    from jawloc.phantom import write_phantoms

    write_phantoms(folder, number, SCAN_SHAPE, progress=False)
    return folder


@contextlib.contextmanager
def without_pictures() -> Iterator[None]:
    """Leave out what takes most of a tiny training's time."""
    from matplotlib.figure import Figure

    import jawloc.workflows.log_training as log_training
    from jawloc.reporting.figures import figure_to_array
    from jawloc.reporting.text_files import write_text
    from jawloc.workflows import locate_scan

    blank, save = Figure(figsize=(0.1, 0.1)), log_training.save_figure

    def save_if_drawn(figure: Any, path: Path) -> np.ndarray:
        if figure is not blank:
            return save(figure, path)
        write_text(path, "")
        return figure_to_array(blank)

    def write_some(folder: Path, *_: Any, **__: Any) -> None:
        write_text(folder / "losses.png", "a picture\n" * 1000)

    drawn = {
        "target_picture": lambda *_: blank,
        "heatmap_tiles": lambda *_: {"": blank},
        "write_pictures": write_some,
        "save_figure": save_if_drawn,
    }
    with (
        mock.patch.multiple(log_training, **drawn),
        mock.patch.object(locate_scan, "location_picture", lambda *_, **__: Figure(figsize=(1, 1))),
    ):
        yield


def may_mount() -> bool:
    """Return whether this process may mount disks of its own."""
    return os.geteuid() == 0 and shutil.which("mount") is not None and _can_mount()


def _can_mount() -> bool:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder), 1):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def _mount(*words: object) -> None:
    command = ["mount", *map(str, words)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: float) -> Iterator[Path]:
    """Mount a disk of this size, in memory, on a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "jawloc-fault", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


@contextlib.contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Make a mounted disk read-only while the block lasts."""
    make_read_only(disk)
    try:
        yield
    finally:
        _mount("-o", "remount,rw", disk)


def make_read_only(disk: Path) -> None:
    _mount("-o", "remount,ro", disk)


def make_writable(disk: Path) -> None:
    _mount("-o", "remount,rw", disk)


def fill(disk: Path, but: int = 0) -> Path:
    """Fill a disk, all but some bytes, with a file; return its path."""
    filler = disk / "filler"
    free = shutil.disk_usage(disk).free - but
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while free > 0:
            free -= file.write(bytes(min(free, 65536)))
    return filler


@contextlib.contextmanager
def at_call(place: Any, name: str, number: int, fault: Callable[[], object]) -> Iterator[list[int]]:
    """Do something just before the given call (counted from 1) of a function of a module."""
    real, calls = getattr(place, name), list[int]()

    def disturbed(*arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            fault()
        return real(*arguments, **settings)

    with mock.patch.object(place, name, disturbed):
        yield calls


def in_child(work: Callable[[], object]) -> int:
    """Start a child process that does some work and ends; return its id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_RDWR)
        for number in (1, 2):
            os.dup2(quiet, number)
        work()
        code = 0
    finally:
        _leave(code)


def _leave(code: int) -> NoReturn:
    os._exit(code)


def end_of(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("a fault could not be planted")
        time.sleep(0.02)


def temporary_files(folder: Path) -> list[str]:
    """Name the files that a writer that was killed, or failed, left behind."""
    return [p.relative_to(folder).as_posix() for p in folder.rglob(".*.part.*")]


def metrics_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def wrong_in_store(database: Path, artifacts: Path, results: Path) -> list[str]:
    """Compare a finished run in its store with the folder of its results; say what is wrong."""
    from jawloc.config.compared import ALWAYS
    from jawloc.reporting.tracking.metric_names import grouped

    rows, run_id = metrics_table(results), _run_id(results)
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as store:
        ask = store.execute
        status = ask("SELECT status FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
        metrics = ask(
            "SELECT key, step, value FROM metrics WHERE run_uuid = ?", (run_id,)
        ).fetchall()
        models = ask(
            "SELECT status FROM logged_models WHERE source_run_id = ?", (run_id,)
        ).fetchall()
        params = {k for (k,) in ask("SELECT key FROM params WHERE run_uuid = ?", (run_id,))}
    wrong = [] if status == ("FINISHED",) else [f"the run is {status}"]
    twice = [key for key, n in Counter((key, step) for key, step, _ in metrics).items() if n > 1]
    wrong += [f"{len(twice)} metrics twice, such as {twice[0]}"] if twice else []
    stored = {(key, step): value for key, step, value in metrics}
    expected = {}
    for row in rows:
        epoch = int(row.pop("epoch"))
        numbers = grouped({key: float(text) for key, text in row.items() if text})
        expected |= {(key, epoch): value for key, value in numbers.items()}
    missing = [key for key in expected if key not in stored]
    wrong += [f"{len(missing)} metrics missing, such as {missing[0]}"] if missing else []
    # an epoch that --resume repeats has the same numbers, but another duration
    same = {key: value for key, value in expected.items() if "seconds" not in key[0]}
    different = [k for k, v in same.items() if k in stored and abs(stored[k] - v) > 1e-6]
    wrong += [f"{len(different)} metrics differ, such as {different[0]}"] if different else []
    wrong += [] if [s for (s,) in models] == [2] else [f"logged models: {models}"]  # one, ready
    lacking = sorted({*ALWAYS} - params)
    wrong += [f"params missing: {lacking}"] if lacking else []
    kept = {p.name for p in artifacts.rglob(f"{run_id}/artifacts/outputs/*")}
    wanted = {"metrics.csv", "summary.json", "config.yml", "losses.png", f"{results.name}.pth"}
    wrong += [f"artifacts missing: {sorted(wanted - kept)}"] if wanted - kept else []
    return wrong


def _run_id(results: Path) -> str:
    import json

    return str(json.loads((results / "summary.json").read_text(encoding="utf-8"))["run_id"])


def judged(fault: str, detail: str, wrong: list[str]) -> Outcome:
    """Return the outcome of a fault, of which so much is wrong."""
    if wrong:
        return Outcome(fault, "LOST", f"{detail}: {'; '.join(wrong)}")
    return Outcome(fault, "survived", detail)
