"""What the faults of stores share: projects, moments of a training, and what must be right."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import tiny_project as tiny
from campaign import Plan
from tiny_project import Said

TRAIN = ("train", "--model-name", "m")
RESULTS = Path("script_output/jaw_location/m")
UNSENT = "unsent.jsonl"
NEEDS = re.compile(r"the disk is full; .+ needs [\d.]+ (MB|bytes), and [\d.]+ (MB|bytes) are free")


class Bench:
    """What all faults share: scans, their cache, an empty store to copy, a model."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.work, self.random = plan, plan.work, plan.random
        self.scans = tiny.write_scans(self.work / "scans", 5)
        self.number = 0
        first = self.project()
        with tiny.without_pictures():
            said = tiny.run(first, *TRAIN)
        if said.code:
            raise RuntimeError(said.error)
        self.model = first / RESULTS / "m.pth"
        self.store = self.work / "store"
        shutil.copytree(first / "mlruns", self.store)
        with contextlib.closing(sqlite3.connect(self.store / "mlflow.db")) as store:
            # its artifacts would go to the first project
            store.execute("UPDATE experiments SET name = 'other' WHERE name = 'jaw_location'")
            store.commit()
            store.execute("PRAGMA journal_mode=DELETE")

    def project(self, folder: Path | None = None, *, store: bool = True, **settings: Any) -> Path:
        """Make a project, in a new folder, with the shared cache."""
        self.number += 1
        folder = folder or self.work / f"project{self.number}"
        cache = {"cache_dir": str(self.work / "cache")}
        tiny.make_project(folder, self.scans, **cache, **settings)
        if store and self.number > 1:
            shutil.copytree(self.store, folder / "mlruns", dirs_exist_ok=True)
        return folder


def moments_of_training() -> dict[str, tuple[Any, str, int]]:
    """Return moments of a training: just before a call of a module's function."""
    import jawloc.workflows.log_training as log_training
    from jawloc.workflows import finish_training, train

    return {
        "before the first epoch is logged": (train, "log_epoch", 1),
        "before the second epoch is logged": (train, "log_epoch", 2),
        "before the second checkpoint": (train, "save_checkpoint", 2),
        "before the model is saved": (finish_training, "save_locator", 1),
        "before the pictures": (finish_training, "draw_results", 1),
        "before the results are logged": (finish_training, "log_results", 1),
        "before the summary is written": (log_training, "write_json", 1),
    }


def some(bench: Bench, every: list[str], number: int) -> list[str]:
    return every if not bench.plan.short else bench.random.sample(every, number)


def complete(base: Path) -> list[str]:
    mlruns = base / "mlruns"
    return tiny.wrong_in_store(mlruns / "mlflow.db", mlruns / "artifacts", base / RESULTS)


def sentence(said: Said, *parts: str) -> list[str]:
    """Say what is wrong with the sentence in which a command ended."""
    wrong = [] if said.code == 2 else [f"exit code {said.code}"]
    wrong += ["a traceback"] if "Traceback" in said.error else []
    wrong += [f"not said: {part!r}" for part in parts if part not in said.sentence]
    return [f"{', '.join(wrong)}: {said.error[-500:]!r}"] if wrong else []


def waits(base: Path, said: Said) -> list[str]:
    """Say what is wrong with a training that went on without its store."""
    wrong = [] if said.code == 0 else [f"exit code {said.code}: {said.error[-500:]!r}"]
    wrong += [] if (base / RESULTS / "m.pth").is_file() else ["no model"]
    wrong += [] if (base / RESULTS / UNSENT).is_file() else ["nothing waits"]
    told = [line for line in said.error.splitlines() if "the store of the runs" in line]
    wrong += [] if len(told) == 2 and "--resume" in told[1] else [f"said {told}"]
    return wrong + (["a traceback"] if "Traceback" in said.error else [])


def sent(base: Path) -> list[str]:
    """Send what waits, by --resume; say what is wrong then."""
    said = tiny.run(base, *TRAIN, "--resume")
    wrong = [] if said.code == 0 else [f"not sent: {said.error[-300:]!r}"]
    wrong += ["still waiting"] if (base / RESULTS / UNSENT).exists() else []
    return wrong + complete(base)
