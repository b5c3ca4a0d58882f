"""What MLflow's store and the folder of results must have of each training and each trial."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from load_project import Project

from jawloc.config.compared import ALWAYS

STUDY = "curriculum"
# Some columns of metrics.csv, and what MLflow calls them
CHECKED_METRICS = {
    "sigma_voxels": "curriculum/sigma",
    "train_kl_nats": "train/kl",
    "val_error_voxels": "val/error_voxels",
}
SECONDS = "seconds"  # which differ between two runs of the same training


def wrong_training(project: Project, name: str, alone: Path | None) -> list[str]:
    """Compare a training's run with its folder, and the folder with that of the training alone."""
    client, results = _client(project), project.results(name)
    run_id = json.loads((results / "summary.json").read_text(encoding="utf-8"))["run_id"]
    runs = [run for run in _runs(client, "") if run.info.run_name == name]
    wrong = [] if [r.info.run_id for r in runs] == [run_id] else [f"{len(runs)} runs of this name"]
    wrong += _wrong_run(client, run_id, _table(results / "metrics.csv"))
    config = yaml.safe_load((results / "config.yml").read_text(encoding="utf-8"))
    seed = client.get_run(run_id).data.params.get("seed", "0")  # left out where it is the default
    wrong += [] if str(config["jaw_loc_config"]["seed"]) == seed else [f"another's seed, {seed}"]
    kept = {path.name: path for path in _artifacts(client, run_id).rglob("*") if path.is_file()}
    for path in results.glob("[!.]*"):
        if path.name not in kept:
            wrong.append(f"MLflow lacks {path.name}")
        elif path.is_file() and path.read_bytes() != kept[path.name].read_bytes():
            wrong.append(f"MLflow has another {path.name}")
    models = client.search_logged_models(_experiments(client), f"source_run_id = '{run_id}'")
    wrong += [] if [str(m.status) for m in models] == ["READY"] else [f"{len(models)} models"]
    return wrong + ([] if alone is None else _different(results, alone))


def _different(results: Path, alone: Path) -> list[str]:
    import torch

    tables = [
        [{key: text for key, text in row.items() if SECONDS not in key} for row in _table(path)]
        for path in (results / "metrics.csv", alone / "metrics.csv")
    ]
    wrong = [] if tables[0] == tables[1] else ["its metrics are not those of the training alone"]
    files = (folder / f"{folder.name}.pth" for folder in (results, alone))
    ours, theirs = (torch.load(path)["state_dicts"] for path in files)
    same = all(
        torch.equal(mine[key], other[key])
        for mine, other in zip(ours, theirs, strict=True)
        for key in other
    )
    return wrong if same else [*wrong, "its weights are not those of the training alone"]


def _wrong_run(client: Any, run_id: str, rows: list[dict[str, str]]) -> list[str]:
    """Say what a run lacks: its end, its settings, an epoch; a row of each gives what is known."""
    run = client.get_run(run_id)
    wrong = [] if run.info.status == "FINISHED" else [f"its run is {run.info.status}"]
    wrong += [] if rows else ["no epochs"]
    lacking = sorted({*ALWAYS} - {*run.data.params})
    wrong += [f"params missing: {lacking}"] if lacking else []
    epochs = [int(row["epoch"]) for row in rows]
    for key, name in CHECKED_METRICS.items():
        history = {m.step: m.value for m in client.get_metric_history(run_id, name)}
        wrong += [] if list(history) == epochs else [f"{key} of epochs {list(history)}"]
        for row in rows:
            known, here = history.get(int(row["epoch"])), float(row.get(key) or "nan")
            if known is not None and abs(known - here) > 1e-6:
                wrong.append(f"{key} of epoch {row['epoch']} is {known}, not {here}")
    return wrong


def wrong_study(
    project: Project, wanted: int, workers: int
) -> tuple[list[str], dict[int, list[str]]]:
    """Compare a study with MLflow's runs and its table: of all of it, and of each trial."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder, client = project.folder / "script_output" / "tuning" / STUDY, _client(project)
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    trials = optuna.load_study(study_name=STUDY, storage=storage).trials
    parents = [run for run in _runs(client, "") if run.info.run_name == STUDY]
    wrong = [] if [run.info.status for run in parents] == ["FINISHED"] else ["not one study's run"]
    runs = {r.info.run_id: r for p in parents for r in _children(client, p.info.run_id)}
    count = len(trials), len(runs), len(_table(folder / "trials.csv"))
    wrong += [] if count == (wanted,) * 3 else [f"trials, runs, rows are {count}, not {wanted}"]
    tried = Counter(json.dumps(trial.params, sort_keys=True) for trial in trials)
    wrong += [] if max(tried.values()) < wanted else ["all trials tried the same"]
    return wrong, {trial.number: _wrong_trial(client, trial, runs) for trial in trials}


def _wrong_trial(client: Any, trial: Any, runs: Mapping[str, Any]) -> list[str]:
    run_id = trial.user_attrs.get("mlflow_run_id")
    if run_id not in runs:
        return ["it has no run below the study's"]
    run, state = runs[run_id], trial.state.name.lower()
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    done = sorted(trial.intermediate_values)
    epochs = [{"epoch": str(epoch)} for epoch in done]
    wrong = [] if state in ("complete", "pruned") else [f"it ended as {state}"]
    wrong += _wrong_run(client, run_id, epochs)
    wrong += [] if metrics.get("trial") == trial.number else [f"trial {metrics.get('trial')}'s run"]
    wrong += [] if tags.get("optuna.state") == state else [f"{state}, {tags.get('optuna.state')}"]
    for key, value in trial.params.items():
        if key in params and abs(float(params[key]) - value) > 1e-9:
            wrong.append(f"{key} is {value}, in MLflow {params[key]}")
    found = metrics.get("objective_error_voxels")
    if state == "complete" and (found is None or abs(found - trial.value) > 1e-9):
        wrong.append(f"its error is {trial.value}, in MLflow {found}")
    return wrong


def _client(project: Project) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(project.store)


def _experiments(client: Any) -> list[str]:
    return [one.experiment_id for one in client.search_experiments()]


def _runs(client: Any, condition: str) -> list[Any]:
    return list(client.search_runs(_experiments(client), condition, max_results=1000))


def _children(client: Any, run_id: str) -> list[Any]:
    return _runs(client, f"tags.mlflow.parentRunId = '{run_id}'")


def _artifacts(client: Any, run_id: str) -> Path:
    from urllib.parse import unquote, urlparse

    return Path(unquote(urlparse(client.get_run(run_id).info.artifact_uri).path))


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
