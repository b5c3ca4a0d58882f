"""What an interrupted and resumed command must have left: the files and runs of an undisturbed one.

Each function returns sentences about what is wrong; none means that nothing is.
"""

from __future__ import annotations

import csv
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

CHECKPOINT = "checkpoint.pt"
IMAGE = re.compile(r"(.+?)\+step\+(\d+)\+.*?((?:\+compressed)?\.\w+)")
LEFTOVER = re.compile(r"\.part\.|\.replac|\.lock$|\.lease$|^\.locks$")
KEPT_LOCKS = {"asking.lock", "opening.lock"}  # of a study, between its commands
HALF_WRITTEN = ".artifact.uploading."
READY = 2  # a logged model's status in the database


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value in a model file with its place, but for the ids of runs."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key != "run_id":
                yield from leaves(inner, f"{place}/{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{place}/{number}")
    else:
        yield place, value


def different_weights(path: Path, reference: Path) -> list[str]:
    """Compare two model files bit for bit."""
    if not path.is_file():
        return [f"{path.name} is missing"]
    one, other = (dict(leaves(torch.load(p, weights_only=True))) for p in (path, reference))
    if one.keys() != other.keys():
        return [f"{path.name} has other keys"]
    for place, value in one.items():
        known = other[place]
        same = (
            value.dtype == known.dtype and torch.equal(value, known)
            if isinstance(value, torch.Tensor)
            else repr(value) == repr(known)
        )
        if not same:
            return [f"{path.name}: {place} differs"]
    return []


def table(path: Path, but: tuple[str, ...] = ("seconds",)) -> list[dict[str, str]]:
    """Return a CSV file's rows without the columns that differ between any two runs."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k not in but} for row in csv.DictReader(file)]


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def leftovers(base: Path) -> list[str]:
    """Name what only a process that works should have in its folders."""
    found = [
        path.relative_to(base).as_posix()
        for top in ("script_output", "out", "mlruns")
        for path in (base / top).rglob("*")
        if LEFTOVER.search(path.name) and path.name not in KEPT_LOCKS
    ]
    return [f"left behind: {name}" for name in found if name != "mlruns/mlflow.lock"]


class Store:
    """The database of runs, read without MLflow."""

    def __init__(self, base: Path) -> None:
        self.base = base
        with closing(sqlite3.connect(base / "mlruns" / "mlflow.db")) as database:

            def rows(sql: str) -> list[tuple]:
                return database.execute(sql).fetchall()

            self.runs = {
                i: (name, status)
                for i, name, status in rows(
                    "SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active'"
                )
            }
            self.metrics = rows("SELECT run_uuid, key, step, value FROM metrics")
            self.models = rows("SELECT model_id, source_run_id, status FROM logged_models")
            self.outputs = rows(
                "SELECT source_id, destination_id FROM inputs WHERE source_type = 'RUN_OUTPUT'"
            )
            self.inputs = rows("SELECT destination_id FROM inputs WHERE source_type = 'DATASET'")
            self.tags = {
                (i, key): value for i, key, value in rows("SELECT run_uuid, key, value FROM tags")
            }

    def finished(self) -> dict[str, str]:
        """Return the ids of the finished runs by their names."""
        return {name: i for i, (name, status) in self.runs.items() if status == "FINISHED"}

    def wrong_statuses(self) -> list[str]:
        known = Counter(name for name, status in self.runs.values() if status == "FINISHED")
        wrong = [f"{n} finished runs are called {name!r}" for name, n in known.items() if n > 1]
        others = {s for _, s in self.runs.values()} - {"FINISHED", "KILLED"}
        return wrong + [f"a run is left {status}" for status in sorted(others)]

    def repeated_steps(self) -> list[str]:
        steps = Counter((run, key, step) for run, key, step, _ in self.metrics)
        twice = sorted(
            {
                f"{key} has step {step} {n} times in {self.runs[run][0]!r}"
                for (run, key, step), n in steps.items()
                if n > 1 and run in self.runs
            }
        )
        return [f"{twice[0]} (and {len(twice) - 1} more)"] if twice else []

    def numbers(self, run: str) -> dict[tuple[str, int], float]:
        return {(key, step): value for i, key, step, value in self.metrics if i == run}

    def artifacts(self, run: str) -> Counter[str]:
        """Return the names of a run's artifacts; of pictures in the grid, row and step.

        A file that MLflow was writing when it was killed stays, under a name that its pages and its
        clients hide.
        """
        folder = self.base / "mlruns" / "artifacts" / run / "artifacts"
        names = names_below(folder) if folder.is_dir() else set()
        names = {name for name in names if not Path(name).name.startswith(HALF_WRITTEN)}
        return Counter(IMAGE.sub(r"\1 \2\3", name) for name in names)

    def models_of(self, run: str) -> list[str]:
        return [model for source, model in self.outputs if source == run]


def different_runs(store: Store, reference: Store) -> list[str]:
    """Compare the finished runs with those of an undisturbed command, by their names."""
    found, known = store.finished(), reference.finished()
    if found.keys() != known.keys():
        return [f"finished runs are {sorted(found)} instead of {sorted(known)}"]
    wrong = []
    for name, run in found.items():
        other = known[name]
        numbers, expected = store.numbers(run), reference.numbers(other)
        if missing := sorted(expected.keys() - numbers.keys()):
            wrong.append(f"{name!r} lacks {missing[0]} and {len(missing) - 1} more metric steps")
        if more := sorted(numbers.keys() - expected.keys()):
            wrong.append(f"{name!r} has {more[0]} and {len(more) - 1} more metric steps")
        differing = [
            k
            for k in numbers.keys() & expected.keys()
            if "seconds" not in k[0] and numbers[k] != expected[k]
        ]
        wrong += [f"{name!r}: {key} differs" for key in sorted(differing)[:1]]
        files, wanted = store.artifacts(run), reference.artifacts(other)
        if files != wanted:
            odd = sorted((files - wanted) + (wanted - files))
            wrong.append(f"{name!r} has other artifacts: {odd[0]} and {len(odd) - 1} more")
        models = store.models_of(run)
        if len(models) != len(reference.models_of(other)):
            wrong.append(f"{name!r} has {len(models)} models")
        if sum(i == run for (i,) in store.inputs) != sum(i == other for (i,) in reference.inputs):
            wrong.append(f"{name!r} has other datasets")
    if pending := [m for m, _, status in store.models if status not in (READY, 3)]:
        wrong.append(f"{len(pending)} models are neither ready nor failed")
    return wrong


def run_of_checkpoint(path: Path) -> str | None:
    """Return the id of the run that a checkpoint belongs to; None without a checkpoint."""
    return str(torch.load(path, weights_only=True)["run_id"]) if path.is_file() else None


def wrong_training(base: Path, reference: Path, name: str = "m") -> list[str]:
    """Compare a training's folder (or a cross-validation's) and its runs with another's."""
    folder, known = (b / "script_output" / "jaw_location" / name for b in (base, reference))
    store = Store(base)
    wrong = []
    for path in sorted(known.rglob("*.pth")):
        wrong += different_weights(folder / path.relative_to(known), path)
    for path in sorted(known.rglob("*.csv")):
        if table(folder / path.relative_to(known)) != table(path):
            wrong.append(f"{path.name} differs")
    if odd := sorted(names_below(folder) ^ names_below(known)):
        wrong.append(f"the folder has other files: {odd[0]} and {len(odd) - 1} more")
    wrong += store.wrong_statuses() + store.repeated_steps()
    return wrong + different_runs(store, Store(reference)) + leftovers(base)


def wrong_study(base: Path, reference: Path, trials: int) -> list[str]:
    """Look whether a study has its trials, each once, and whether runs are in order."""
    folder, known = (b / "script_output" / "tuning" / "curriculum" for b in (base, reference))
    store, rows = Store(base), table(folder / "trials.csv", ("seconds", "mlflow_run_id"))
    wrong = [
        f"trial {r['trial']} is {r['state']}"
        for r in rows
        if r["state"] not in ("complete", "pruned", "waiting")
    ]
    done = [row for row in rows if row["state"] in ("complete", "pruned")]
    if len(done) != trials:
        wrong.append(f"{len(done)} of {trials} trials are done")
    settings = [key for key in (done[0] if done else {}) if "." in key]
    default = table(known / "trials.csv")[0]
    own = [row for row in done if all(row[k] == default[k] for k in settings)]
    if not own or own[0]["error_voxels"] != default["error_voxels"]:
        wrong.append("the trial of the default settings is missing or has another error")
    if not (folder / "best.yml").is_file():
        wrong.append("best.yml is missing")
    return wrong + store.wrong_statuses() + store.repeated_steps() + leftovers(base)


def wrong_locations(base: Path, reference: Path) -> list[str]:
    """Compare the files of `jawloc locate` with another's, but for times and places."""
    folder, known = base / "out", reference / "out"
    wrong = []
    if odd := sorted(names_below(folder) ^ names_below(known)):
        wrong.append(f"the folder has other files: {odd[0]} and {len(odd) - 1} more")
    for path in sorted(known.rglob("*.tif")):
        copy = folder / path.relative_to(known)
        if copy.is_file() and copy.read_bytes() != path.read_bytes():
            wrong.append(f"{path.name} differs")
    but = ("seconds", "path", "key", "model")
    if table(folder / "locations.csv", but) != table(known / "locations.csv", but):
        wrong.append("locations.csv differs")
    return wrong + leftovers(base)
