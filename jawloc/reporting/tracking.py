"""Runs, metrics, pictures and the model in MLflow; the only module that imports mlflow.

Everything goes through a client that knows its own store, never through MLflow's global active
run or global tracking URI, so that several runs, and several stores, can be open at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

# MLflow reads these when it is imported; a user's own choice stays.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

import mlflow.pyfunc
from mlflow import MlflowClient, MlflowException, entities
from mlflow.models import Model, ModelSignature
from mlflow.models import set_model as set_model  # for served_model.py
from mlflow.pyfunc import PythonModel as PythonModel
from mlflow.pyfunc import PythonModelContext as PythonModelContext
from mlflow.types import ColSpec, Schema

from jawloc.errors import InputError
from jawloc.reporting.provenance import PACKAGE, locator_requirements, source_tags
from jawloc.reporting.ui_server import serve

if TYPE_CHECKING:
    from jawloc.reporting.figures import Figure
    from jawloc.training.loop import EpochRecord

EXPERIMENT = "jaw_location"
STORE_FOLDER = "mlruns"
MODEL_NAME = "locator"
LONGEST_VALUE = 5000  # characters of a param or tag; MLflow takes 6000
PARAMS_A_BATCH = 100  # MLflow's limit


def tracking_uri(root: Path) -> str:
    """Return the store's URI: the user's MLFLOW_TRACKING_URI, else a database under `root`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_database(root).as_posix()}"


def _database(root: Path) -> Path:
    return root.resolve() / STORE_FOLDER / "mlflow.db"


def prepare_store(root: Path, experiment: str = EXPERIMENT) -> str:
    """Make sure that the store and the experiment exist, and return the store's URI.

    Several processes may do this at once: a file lock lets one of them set the database up. The
    store under `root` keeps its artifacts in `mlruns/artifacts`; a store of the user's own keeps
    them where it wants.
    """
    uri, database = tracking_uri(root), _database(root)
    if uri != f"sqlite:///{database.as_posix()}":
        _ensure_experiment(MlflowClient(tracking_uri=uri), experiment, None)
        return uri
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name("mlflow.lock")):
        artifacts = database.with_name("artifacts").as_uri()
        _ensure_experiment(MlflowClient(tracking_uri=uri), experiment, artifacts)
        with closing(sqlite3.connect(database)) as connection:
            # readers (the UI) and writers (other runs) don't wait for each other
            connection.execute("PRAGMA journal_mode=WAL")
    return uri


def _ensure_experiment(client: MlflowClient, name: str, artifacts: str | None) -> None:
    known = client.get_experiment_by_name(name)
    if known is None:
        client.create_experiment(name, artifact_location=artifacts)
    elif known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)


@contextmanager
def tracked_run(
    root: Path,
    run_name: str,
    *,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    experiment: str = EXPERIMENT,
    parent_run_id: str | None = None,
    run_id: str | None = None,
) -> Iterator[TrackedRun]:
    """Open a run, and end it FINISHED, FAILED (an exception) or KILLED (an interruption).

    Parameters
    ----------
    params : mapping from a dotted config key to its value
        Values become text; very long ones are shortened. A param can't change: where a resumed
        run has another value now, that goes into the tag `resumed.<key>`.
    parent_run_id : str or None
        The run that this one is shown under, for instance a search's.
    run_id : str or None
        An earlier run to go on with.

    Raises
    ------
    InputError
        If `run_id` is not in the store.
    """
    client = MlflowClient(tracking_uri=prepare_store(root, experiment))
    every_tag = {**source_tags(), **tags}
    if run_id is None:
        if parent_run_id is not None:
            every_tag["mlflow.parentRunId"] = parent_run_id
        experiment_id = client.get_experiment_by_name(experiment).experiment_id
        run_id = client.create_run(experiment_id, tags=every_tag, run_name=run_name).info.run_id
    else:
        _reopen(client, run_id, every_tag)
    status = "FAILED"
    try:
        _log_params(client, run_id, params)
        yield TrackedRun(client, run_id)
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        client.set_terminated(run_id, status)


def _reopen(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(
            f"run {run_id}: a run can only be resumed in the tracking store that it began in; "
            f"{client.tracking_uri} does not have it"
        ) from None
    client.log_batch(run_id, tags=[entities.RunTag(key, value) for key, value in tags.items()])


def _log_params(client: MlflowClient, run_id: str, params: Mapping[str, object]) -> None:
    """Log params in few batches; what a resumed run has already stays as it is."""
    known = client.get_run(run_id).data.params
    texts = {key: _shortened(str(value)) for key, value in params.items()}
    new = [entities.Param(key, text) for key, text in texts.items() if key not in known]
    for start in range(0, len(new), PARAMS_A_BATCH):
        client.log_batch(run_id, params=new[start : start + PARAMS_A_BATCH])
    for key, text in texts.items():
        if known.get(key, text) != text:
            client.set_tag(run_id, f"resumed.{key}", text)


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_VALUE:
        return text
    return f"{text[:LONGEST_VALUE]}... ({len(text)} characters)"


@dataclass(frozen=True)
class TrackedRun:
    """An open run; what is logged is in the store when a method returns."""

    client: MlflowClient
    run_id: str

    def log_epoch(self, record: EpochRecord) -> None:
        """Log an epoch's numbers under their flat names, with the epoch as the step."""
        numbers = record.flat()
        self._log_metrics(numbers, step=int(numbers.pop("epoch")))

    def log_summary(self, numbers: Mapping[str, float | None]) -> None:
        """Log a run's final numbers; those that are None (no spacing, no mm) are left out."""
        self._log_metrics({k: v for k, v in numbers.items() if v is not None}, step=0)

    def _log_metrics(self, numbers: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [entities.Metric(key, float(value), now, step) for key, value in numbers.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def log_heatmap(self, picture: np.ndarray | Figure, key: str, step: int) -> None:
        """Put a picture (uint8, shape (rows, columns, 3), or a figure) on the UI's image grid.

        Parameters
        ----------
        key : str
            The row of the grid, for instance `heatmap/val`; `step` is the column.
        """
        if not isinstance(picture, np.ndarray):
            from jawloc.reporting.figures import figure_to_array

            picture = figure_to_array(picture)
        self.client.log_image(self.run_id, picture, key=key, step=step)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into a folder of the run's artifacts (the top one by default)."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def log_text(self, text: str, name: str) -> None:
        """Write a text artifact."""
        self.client.log_text(self.run_id, text, name)

    def log_dict(self, content: Mapping[str, Any], name: str) -> None:
        """Write a mapping as an artifact, JSON or YAML as its name says."""
        self.client.log_dict(self.run_id, dict(content), name)

    def log_dataset(
        self, splits: Mapping[str, Sequence[str]], cache_keys: Mapping[str, str]
    ) -> None:
        """Say which scans the run saw, and in which state.

        One MLflow dataset a split, whose digest changes with any scan or cache setting, and the
        ids with their keys in `dataset.json`.

        Parameters
        ----------
        splits : mapping from a split's name to its scan ids
        cache_keys : mapping from a scan id to the key of its cached example
        """
        content = {name: {i: cache_keys[i] for i in ids} for name, ids in splits.items()}
        self.log_dict(content, "dataset.json")
        place = f"{self.client.get_run(self.run_id).info.artifact_uri}/dataset.json"
        inputs = [
            entities.DatasetInput(
                entities.Dataset(
                    name=f"{name} scans",
                    digest=hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[
                        :8
                    ],
                    source_type="local",
                    source=json.dumps({"uri": place}),
                    profile=json.dumps({"num_scans": len(keys)}),
                ),
                tags=[entities.InputTag("mlflow.data.context", name)],
            )
            for name, keys in content.items()
        ]
        self.client.log_inputs(self.run_id, datasets=inputs)

    def log_locator(self, weights: Path) -> str:
        """Log a locator's `.pth` as an MLflow model that takes scan paths, and return its URI.

        The model is code (`served_model.py` and jawloc itself) and the weights as an artifact:
        nothing is pickled. It carries the run's params and its summary, if that is logged first.
        """
        run = self.client.get_run(self.run_id)
        model = self.client.create_logged_model(
            run.info.experiment_id, MODEL_NAME, self.run_id, params=run.data.params
        )
        description = Model(
            artifact_path=model.artifact_location,
            run_id=self.run_id,
            model_uuid=model.model_id,
            model_id=model.model_id,
        )
        try:
            with tempfile.TemporaryDirectory() as folder:
                _save_model(Path(folder) / "model", weights, description)
                self.client.log_model_artifacts(model.model_id, str(Path(folder) / "model"))
        except BaseException:
            self.client.finalize_logged_model(model.model_id, "FAILED")
            raise
        self.client.finalize_logged_model(model.model_id, "READY")
        self.client.log_outputs(self.run_id, [entities.LoggedModelOutput(model.model_id, step=0)])
        histories = [self.client.get_metric_history(self.run_id, key) for key in run.data.metrics]
        summary = [
            entities.Metric(
                m.key, m.value, m.timestamp, m.step, model_id=model.model_id, run_id=self.run_id
            )
            for (*_, m) in histories
            if m.step == 0
        ]
        self.client.log_batch(self.run_id, metrics=summary)
        return f"models:/{model.model_id}"


def _save_model(folder: Path, weights: Path, description: Model) -> None:
    signature = ModelSignature(
        # a nameless column, since MLflow then takes lists as well as tables
        inputs=Schema([ColSpec("string")]),
        outputs=Schema(
            [ColSpec("string", name) for name in ("scan", "object")]
            + [ColSpec("double", f"{axis}_voxels") for axis in "zyx"]
            + [ColSpec("double", f"{axis}_mm", required=False) for axis in "zyx"]
            + [ColSpec("double", "spread_voxels")]
        ),
    )
    with warnings.catch_warnings():
        # an example would be a path on this machine, and checking it would read a whole scan
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        mlflow.pyfunc.save_model(
            path=str(folder),
            mlflow_model=description,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"weights": str(weights)},
            code_paths=[str(PACKAGE)],
            pip_requirements=locator_requirements(),
            signature=signature,
            model_config={"allowed_folder": None},
        )


def open_ui(
    root: Path,
    port: int = 5000,
    experiment: str = EXPERIMENT,
    say: Callable[[str], None] = print,
) -> None:
    """Serve MLflow's pages for this machine only, until they are interrupted.

    Raises
    ------
    InputError
        If the port is taken, or MLflow's server ends by itself.
    """
    uri = prepare_store(root, experiment)
    known = MlflowClient(tracking_uri=uri).get_experiment_by_name(experiment)
    page = f"#/experiments/{known.experiment_id}"
    if uri.startswith("http"):
        say(f"the runs are at {uri.rstrip('/')}/{page}")
        return
    artifacts = _database(root).with_name("artifacts")
    serve(uri, artifacts.as_uri(), root, port, page, say)
