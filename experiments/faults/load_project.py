"""A project folder with tiny phantoms, and jawloc's commands in it as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from campaign import Outcome

MODEL = "load"
CODE = Path(__file__).parents[2]
LONGEST_SECONDS = 7200  # of one command; a longer one hangs
SCANS, SHAPE, EPOCHS = 8, (32, 24, 24), 2
SETTINGS: dict[str, Any] = {
    "dicom_dirs": ["dicoms/labelled"],
    "downsampled_dicom_size": [24, 12, 12],
    "initial_kernel_size": 4,
    "num_epochs": EPOCHS,
    "crop_size": [12, 12, 12],
    "network": {"channels": [4, 8], "stride": 2},
    "presence_classifier": {"steps": 3},
    # so large that every epoch is good enough for a narrower heatmap
    "curriculum": {"threshold": 100.0, "minimum_sigma": 1.5},
}


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said on standard output and error."""

    code: int
    output: str
    error: str

    @property
    def last_line(self) -> str:
        return (self.error.strip().splitlines() or ["nothing"])[-1]


@dataclass(frozen=True)
class Command:
    """A command that was started; its process leads a group of its own."""

    process: subprocess.Popen[bytes]
    said: Path  # beginning of the names of the files with its output

    def wait(self) -> Said:
        try:
            code = self.process.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        out, error = (
            self.said.with_suffix(ending).read_text(encoding="utf-8", errors="replace")
            for ending in (".out", ".err")
        )
        return Said(code, out, error)


class Project:
    """A folder with scans and settings; store and cache are made by the first command."""

    def __init__(self, folder: Path) -> None:
        from jawloc.phantom import write_phantoms

        self.folder, self.started = folder, 0
        write_phantoms(folder / "dicoms" / "labelled", SCANS, SHAPE, progress=False)
        settings = yaml.safe_dump({"jaw_loc_config": SETTINGS})
        (folder / "userconf.yml").write_text(settings, encoding="utf-8")

    @property
    def store(self) -> str:
        return f"sqlite:///{(self.folder / 'mlruns' / 'mlflow.db').resolve().as_posix()}"

    def results(self, name: str) -> Path:
        return self.folder / "script_output" / "jaw_location" / name

    def start(self, *words: object, module: str = "jawloc", **variables: str) -> Command:
        """Start a command; each sum has one thread, so that its last bit is the same again."""
        self.started += 1
        said = self.folder.parent / f"{self.folder.name}_said_{self.started}"
        names = {"MLFLOW_TRACKING_URI", "JAWLOC_SCAN_FOLDER"}
        environment = {k: v for k, v in os.environ.items() if k not in names}
        paths = [str(CODE), *filter(None, [environment.get("PYTHONPATH")])]
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths), **variables}
        with said.with_suffix(".out").open("wb") as out, said.with_suffix(".err").open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *map(str, words)],
                cwd=self.folder,
                env=environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return Command(process, said)

    @contextmanager
    def timed(self, figures: list[tuple[str, object]], what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        figures.append((what, round(time.monotonic() - started, 1)))


def judged(fault: str, detail: str, wrong: Sequence[str]) -> Outcome:
    """Return the outcome of a fault, of which so much is wrong."""
    if wrong:
        return Outcome(fault, "LOST", f"{detail}: {'; '.join(wrong)}")
    return Outcome(fault, "survived", detail)
