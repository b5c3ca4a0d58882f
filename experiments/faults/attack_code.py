"""Pickles with code in them, in the place of everything that jawloc reads; none is ever run."""

from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from campaign import Outcome, Plan

from jawloc.config import load_config
from jawloc.errors import InputError
from jawloc.inference.models import ModelOptions, load_model
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import SCAN_ENDINGS
from jawloc.training.checkpoint import check_settings
from jawloc.workflows.tune.study import SAMPLERS, StudyConfig, load

JSON_COLUMNS = {  # of Optuna's tables
    "study_user_attributes": "value_json",
    "trial_user_attributes": "value_json",
    "trial_system_attributes": "value_json",
    "trial_params": "distribution_json",
}


class Payload:
    """Leaves a folder behind if it is unpickled, by one of several ways of running code."""

    WAYS = ("mkdir", "eval", "exec", "shell")

    def __init__(self, trace: Path, way: str) -> None:
        self.trace, self.way = str(trace), way

    def __reduce__(self) -> Any:
        code = f"__import__('os').mkdir({self.trace!r})"
        return {
            "mkdir": (os.mkdir, (self.trace,)),
            "eval": (eval, (code,)),
            "exec": (exec, (code,)),
            "shell": (subprocess.call, (["mkdir", self.trace],)),
        }[self.way]


def code_faults(plan: Plan) -> Iterator[Outcome]:
    trace = plan.work / "was_run"
    ways = ("eval",) if plan.short else Payload.WAYS
    yield _would_run(trace)
    for way in ways:
        payload = Payload(trace, way)
        for place, attack in _attacks(plan, payload):
            yield _outcome(place, way, trace, attack)
    if not plan.short:
        yield from _broken_pickles(plan, trace)


def _would_run(trace: Path) -> Outcome:
    """See that the payloads are alive: where pickles are loaded, they run."""
    pickle.loads(pickle.dumps(Payload(trace, "eval")))
    alive = trace.is_dir()
    trace.rmdir()
    return Outcome("payloads that run where they are unpickled", "survived" if alive else "LOST")


def _outcome(place: str, detail: str, trace: Path, attack: Callable[[], object]) -> Outcome:
    try:
        attack()
        what = "read"
    except InputError as error:
        what = "LOST" if "\n" in str(error) else "refused"
        detail = f"{detail}: {error}"
    except Exception as error:  # a traceback is not what a user should see
        what, detail = "LOST", f"{detail}: {error!r}"
    if trace.exists():
        trace.rmdir()
        what = "LOST"
    return Outcome(f"code in {place}", what, detail)


def _attacks(plan: Plan, payload: Payload) -> Iterator[tuple[str, Callable[[], object]]]:
    for name, write in _weights(payload).items():
        path = plan.work / f"{name}.pth"
        write(path)
        yield "a model", lambda path=path: load_model(path, ModelOptions())
        yield "a checkpoint", lambda path=path: check_settings(path, {})
    for ending in (".npy", *SCAN_ENDINGS):
        path = plan.work / f"a{ending}"
        with path.open("wb") as file:
            np.save(file, np.array([payload], object), allow_pickle=True)
        yield "an array of objects", lambda path=path: open_scan(path)
    config = load_config(_settings(plan.work))
    yield "a study's journal", lambda: _load_journal(config, payload)
    yield "a study's database", lambda: _load_database(plan, config, payload)
    for sampler in SAMPLERS:
        yield (
            "what Optuna's samplers keep",
            lambda name=sampler: _ask_sampler(plan, config, payload, name),
        )
    yield "a logged model", lambda: _load_logged(plan, payload)


def _weights(payload: Payload) -> dict[str, Callable[[Path], object]]:
    content = {"format": "jawloc-locator-1", "weights": torch.zeros(1), "more": payload}
    writers: dict[str, Callable[[Path], object]] = {
        "zip": lambda path: torch.save(content, path),
        "old": lambda path: torch.save(content, path, _use_new_zipfile_serialization=False),
    }
    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        data = pickle.dumps({"weight": payload}, protocol)
        writers[f"protocol_{protocol}"] = lambda path, data=data: path.write_bytes(data)
    return writers


def _settings(folder: Path) -> Path:
    path = folder / "userconf.yml"
    path.write_text(yaml.safe_dump({"jaw_loc_config": {"dicom_dirs": ["dicoms"]}}), "utf-8")
    return path


def _load_journal(config: Any, payload: Payload) -> None:
    study = StudyConfig("journal", trials=1)
    journal = study.folder(config.base) / "study.journal"
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_bytes(pickle.dumps(payload) + b"\n")
    load(study, config)


def _load_database(plan: Plan, config: Any, payload: Payload) -> None:
    """Plant the payload in each column of attributes; the last refusal is raised."""
    path = plan.work / "study.db"
    path.unlink(missing_ok=True)
    study = StudyConfig("database", trials=1, storage=f"sqlite:///{path}", sampler="random")
    _with_attributes(load(study, config), "note", "1")
    refusals: list[InputError] = []
    with closing(sqlite3.connect(path)) as connection:
        for table, column in JSON_COLUMNS.items():
            (was, *_) = connection.execute(f"SELECT {column} FROM {table}").fetchall()
            connection.execute(f"UPDATE {table} SET {column} = ?", (pickle.dumps(payload),))
            connection.commit()
            try:
                load(study, config)
            except InputError as error:
                refusals.append(error)
            connection.execute(f"UPDATE {table} SET {column} = ?", was)
            connection.commit()
    if len(refusals) < len(JSON_COLUMNS):
        raise AssertionError(f"only {len(refusals)} columns were refused")
    raise refusals[-1]


def _ask_sampler(plan: Plan, config: Any, payload: Payload, sampler: str) -> None:
    """Plant the payload where CMA-ES, which jawloc doesn't use, would unpickle it."""
    state = pickle.dumps(payload).hex()
    study = StudyConfig(f"sampler_{sampler}_{payload.way}", trials=1, sampler=sampler)
    opened = load(study, config)
    for key in ("cma:optimizer:0", "sepcma:optimizer:0", "cma:optimizer"):
        trial = _with_attributes(opened, key, state)
    opened.tell(trial, 1.0)
    _with_attributes(load(study, config), "note", "1")


def _with_attributes(study: Any, key: str, value: str) -> Any:
    trial = study.ask()
    trial.suggest_float("curriculum.threshold", 0.5, 2.0)
    trial.set_user_attr("note", value)
    study.set_user_attr("note", value)
    study._storage.set_trial_system_attr(trial._trial_id, key, value)
    study._storage.set_study_system_attr(study._study_id, key, value)
    return trial


def _load_logged(plan: Plan, payload: Payload) -> None:
    """Load a registered model that brings pickles and modules of its own."""
    from jawloc.reporting.tracking.model_files import model_file
    from jawloc.reporting.tracking.store import connected

    name = f"planted_{payload.way}"
    folder = plan.work / name
    (folder / "code" / "jawloc").mkdir(parents=True)
    for file in ("python_model.pkl", "weights.pth"):
        (folder / file).write_bytes(pickle.dumps(payload))
    for file in ("code/jawloc/__init__.py", "code/loader.py"):
        (folder / file).write_text(f"import os; os.mkdir({payload.trace!r})", "utf-8")
    flavour = {"loader_module": "loader", "code": "code", "python_model": "python_model.pkl"}
    (folder / "MLmodel").write_text(
        yaml.safe_dump({"flavors": {"python_function": flavour}}), "utf-8"
    )
    with connected(plan.work) as client:
        client.create_registered_model(name)
        client.create_model_version(name, folder.as_uri())
    with model_file(f"models:/{name}/1", plan.work) as path:
        load_model(path, ModelOptions())


def _broken_pickles(plan: Plan, trace: Path) -> Iterator[Outcome]:
    """Yield model files whose bytes were changed at random places."""
    rng, path = plan.random, plan.work / "broken.pth"
    for number in range(1000):
        payload = Payload(trace, rng.choice(Payload.WAYS))
        data = bytearray(pickle.dumps({"a": payload}, rng.choice((2, 4))))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        attack = partial(load_model, path, ModelOptions())
        yield _outcome("a model with changed bytes", str(number), trace, attack)
