"""Where runs are kept: a database under the user's folder, or the store of MLFLOW_TRACKING_URI."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from mlflow import MlflowClient, MlflowException
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel
from mlflow.entities.model_registry import ModelVersion
from mlflow.store.artifact.utils.models import get_model_name_and_version
from sqlalchemy import Engine, event

from jawloc.errors import InputError, without_secrets
from jawloc.reporting.tracking import MLFLOW_RETRIES, MLFLOW_TIMEOUT, USUAL_RETRIES
from jawloc.reporting.tracking.environment import environment
from jawloc.reporting.tracking.schema import create_database, refuse_other_schema
from jawloc.reporting.tracking.views import describe_experiment
from jawloc.reporting.tracking.waiting_sqlite import CONNECT_ARGUMENTS, waiting_once
from jawloc.scans.atomic import make_writable
from jawloc.scans.locks import locked

EXPERIMENT = "jaw_location"
STORE_FOLDER = "mlruns"
BRIEF_RETRIES, BRIEF_SECONDS = "1", "10"

# MLflow prints a traceback of each of a database's errors, beside raising it.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@event.listens_for(Engine, "do_connect")
def _wait_for_locked_files(dialect: Any, _record: Any, _given: Any, settings: Any) -> None:
    """Let MLflow wait for an SQLite file that another process has locked, as studies do."""
    if dialect.name == "sqlite":
        settings.update(CONNECT_ARGUMENTS)


class _Masked(logging.Filter):
    """Hides the secrets in what MLflow logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage()), None
        return True


for _handler in logging.getLogger("mlflow").handlers:
    _handler.addFilter(_Masked())


def tracking_uri(root: Path) -> str:
    """Return the store's URI: the user's MLFLOW_TRACKING_URI, else a database under `root`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store_database(root).as_posix()}"


def store_database(root: Path) -> Path:
    """Return the path of the database of the store under `root`, which may not exist yet."""
    return root.resolve() / STORE_FOLDER / "mlflow.db"


def prepare_store(root: Path, experiment: str = EXPERIMENT) -> str:
    """Create the store and the experiment where they are missing, and return the store's URI.

    Several processes may do so at once. The store under `root` keeps its artifacts in
    `mlruns/artifacts`; a store of the user's own keeps them where it is configured to.

    Raises InputError if the database under `root` is damaged, of another MLflow's schema, or in a
    folder that can't be written to, and ConnectionError if the store does not answer.
    """
    uri, database = tracking_uri(root), store_database(root)
    refuse_other_schema(uri)
    if uri != f"sqlite:///{database.as_posix()}":
        with reached(uri), without_retries():
            _ensure_experiment(MlflowClient(uri), experiment, None)
        return uri
    folder = database.parent
    make_writable(
        folder, f"{folder}: the store of the runs must be a folder that can be written to"
    )
    with reached(uri), locked(database.with_name("mlflow.lock")):
        if not database.is_file():
            create_database(database)
        try:
            artifacts = database.with_name("artifacts").as_uri()
            _ensure_experiment(MlflowClient(uri), experiment, artifacts)
            # readers (the UI) and writers (other runs) don't wait for each other then
            with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        except Exception:
            refuse_damaged(database)
            raise
    return uri


def _ensure_experiment(client: MlflowClient, name: str, artifacts: str | None) -> None:
    known = client.get_experiment_by_name(name)
    if known is None:
        made = client.create_experiment(name, artifact_location=artifacts)
        known = client.get_experiment(made)
    elif known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)
    describe_experiment(client, known)


def refuse_damaged(database: Path, wait_seconds: float = 5.0) -> None:
    """Raise InputError if SQLite, which reads the whole file, finds it damaged."""
    try:
        with closing(sqlite3.connect(database, timeout=wait_seconds)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return  # locked or out of reach: the content is unknown
        verdict = str(error)
    if verdict != "ok":
        raise InputError(
            f"{database}: the database of earlier runs is damaged, and training goes on with a "
            f"new one once you move it away; {' '.join(verdict.split())}"
        ) from None


@contextmanager
def connected(
    root: Path, experiment: str = EXPERIMENT, *, offline: bool = False
) -> Iterator[MlflowClient]:
    """Give a client of the store under `root`, made if missing, and of its registry.

    Raises what `prepare_store` does, and ConnectionError also where the store fails in the block.
    `offline`: a store that does not answer now may do so later.
    """
    try:
        uri = prepare_store(root, experiment)
    except ConnectionError:
        if not offline:
            raise
        uri = tracking_uri(root)
    with reached(uri):
        yield _client(uri)


def _client(store: str) -> MlflowClient:
    refuse_other_schema(store)
    return MlflowClient(store, os.environ.get("MLFLOW_REGISTRY_URI") or store)


def download_model(root: Path, uri: str, folder: Path) -> Path:
    """Copy the files of a `models:/` or `runs:/` URI into a folder; none of their code is run.

    The URI is `models:/NAME@ALIAS`, `models:/NAME/VERSION` (or `latest`), `models:/MODEL_ID`, or
    `runs:/RUN_ID/PATH`, where the path is a logged model's name or an artifact's. InputError tells
    that there is no store under `root`, or nothing of this name in it.
    """
    store, database = tracking_uri(root), store_database(root)
    if store == f"sqlite:///{database.as_posix()}" and not database.is_file():
        raise InputError(f"{uri}: there are no runs in {database.parent} to take a model from")
    try:
        with without_retries():
            place = _location(_client(store), uri)
            return Path(download_artifacts(place, dst_path=str(folder), tracking_uri=store))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{uri}: the model must be in the store {store}; {reason}") from error


def _location(client: MlflowClient, uri: str) -> str:
    """Return where the files of a model or run lie, asking only the client's own store."""
    if uri.startswith("runs:/"):
        run_id, _, path = uri.removeprefix("runs:/").strip("/").partition("/")
        for model in logged_models(client, run_id):
            if path in ("", model.name):
                return str(model.artifact_location)
        return f"{client.get_run(run_id).info.artifact_uri}/{path}"
    version = named_model(client, uri)
    if isinstance(version, LoggedModel):
        return str(version.artifact_location)
    place = str(client.get_model_version_download_uri(version.name, version.version))
    return _location(client, place) if place.startswith(("models:/", "runs:/")) else place


def logged_models(client: MlflowClient, run_id: str) -> list[LoggedModel]:
    """Return the models that are logged to a run, the latest first."""
    outputs = client.get_run(run_id).outputs
    every = outputs.model_outputs if outputs else []
    found = [client.get_logged_model(output.model_id) for output in every]
    return sorted(found, key=lambda model: model.creation_timestamp, reverse=True)


def named_model(client: MlflowClient, uri: str) -> ModelVersion | LoggedModel:
    """Return what a `models:/` URI names: a version, or a logged model where it has an id."""
    found = get_model_name_and_version(client, uri)
    return client.get_model_version(*found) if len(found) == 2 else client.get_logged_model(*found)


@contextmanager
def reached(uri: str) -> Iterator[None]:
    """Turn what MLflow says of a store that can't be used into a ConnectionError of one line."""
    try:
        yield
    except MlflowException as error:
        reason = f"the store of the runs can't be reached or used; {str(error).splitlines()[0]}"
        raise ConnectionError(without_secrets(f"{uri}: {reason}")) from error


@contextmanager
def without_retries() -> Iterator[None]:
    """Don't wait for a server that does not answer at once."""
    with environment({MLFLOW_RETRIES: "0"}):
        yield


@contextmanager
def briefly() -> Iterator[None]:
    """Wait only seconds for a store, unless the user has said how long: for what can be sent later.

    An SQLite file that is locked is waited for as long as MLflow does, 20 s.
    """
    retries = os.environ[MLFLOW_RETRIES]
    wanted = {
        MLFLOW_RETRIES: BRIEF_RETRIES if retries == USUAL_RETRIES else retries,
        MLFLOW_TIMEOUT: os.environ.get(MLFLOW_TIMEOUT, BRIEF_SECONDS),
    }
    with environment(wanted), waiting_once():
        yield
