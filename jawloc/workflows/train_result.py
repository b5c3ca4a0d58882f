"""What a training showed, and the rest of its log, where the store did not take it in time."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jawloc.config import Config, load_config
from jawloc.errors import InputError, one_line
from jawloc.reporting.folders.run_folder import CHECKPOINT, SUMMARY, UNSENT, with_unsent
from jawloc.reporting.run_text import describe_run
from jawloc.reporting.tracking.runs import send_unsent
from jawloc.scans.messages import closest_shown
from jawloc.scans.progress import Progress
from jawloc.training.checkpoint import refuse_changes


@dataclass(frozen=True)
class TrainResult:
    """What a training showed."""

    folder: Path
    summary: dict[str, Any]  # as in summary.json

    def __str__(self) -> str:
        base = self.folder.parents[2]
        elsewhere = "" if base.resolve() == Path.cwd() else f" (run it in {base})"
        return describe_run(self.summary, self.folder, f"jawloc ui{elsewhere}")


def send_rest(root: Path, folder: Path) -> TrainResult:
    """Send what waits of a run that is over, and of its folds; return its result again.

    Raises ConnectionError if the store still does not answer.
    """
    for place in with_unsent(folder):
        send_unsent(root, place / UNSENT)
    return TrainResult(folder, json.loads((folder / SUMMARY).read_text(encoding="utf-8")))


def send_before_replacing(root: Path, folder: Path) -> None:
    """Send what waits of a run, and of its folds, before their files give way to another run's.

    Raises InputError if the store does not take it.
    """
    for place in with_unsent(folder):
        try:
            send_unsent(root, place / UNSENT)
        except OSError as error:
            raise InputError(
                f"{place / UNSENT}: what waits here for the store of the runs must be sent before "
                f"another run replaces this one (or remove the file); {one_line(error)}"
            ) from error


def begun_before(folder: Path, *, say: bool = True) -> bool:
    """Return whether a folder holds an interrupted run; if not, say that the run begins now.

    It is not refused: a batch job that is queued again has --resume from its first start on, and
    nothing is kept of a run that is killed in its first epoch. The unfinished runs beside it are
    named, since the name may be mistyped.
    """
    begun = (folder / CHECKPOINT).is_file()
    if say and not begun:
        others = [path.parent.name for path in folder.parent.glob(f"*/{CHECKPOINT}")]
        known = f"; unfinished runs: {closest_shown(folder.name, others)}" if others else ""
        _say(f"there is no run {folder.name!r} to go on with, so it begins now{known}")
    return begun


def finished_result(folder: Path, config: Config, folds: int | None = None) -> TrainResult:
    """Return what a finished run showed, and send what waits of it.

    The process may have been ended after its last work, but before it said so. Raises InputError if
    the run's settings differ from these, and ConnectionError if something waits for a store that
    still does not answer.
    """
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    known = {k: str(v) for k, v in load_config(folder / "config.yml").as_params().items()}
    known["folds"] = str(summary.get("folds"))
    refuse_changes(folder.name, known, {**config.as_params(), "folds": folds}, finished=True)
    result = send_rest(config.base, folder)
    _say(f"{folder.name!r} is finished; --overwrite trains it anew")
    return result


def _say(sentence: str) -> None:
    Progress.write(f"--resume: {sentence}", file=sys.stderr)
