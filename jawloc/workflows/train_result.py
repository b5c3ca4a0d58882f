"""What a training showed, and the rest of its log, where the store did not take it in time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jawloc.reporting.folders.run_folder import UNSENT, with_unsent
from jawloc.reporting.summary import describe_run
from jawloc.reporting.tracking.runs import send_unsent


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
    return TrainResult(folder, json.loads((folder / "summary.json").read_text(encoding="utf-8")))
