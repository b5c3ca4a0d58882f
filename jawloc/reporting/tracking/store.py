"""Where runs are kept: a database under the user's folder, or MLFLOW_TRACKING_URI's store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient, MlflowException
from mlflow.artifacts import download_artifacts

from jawloc.errors import InputError
from jawloc.reporting.tracking import MLFLOW_RETRIES
from jawloc.reporting.tracking.database import refuse_damaged, share

EXPERIMENT = "jaw_location"
STORE_FOLDER = "mlruns"


def tracking_uri(root: Path) -> str:
    """Return the store's URI: the user's MLFLOW_TRACKING_URI, else a database under `root`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store_database(root).as_posix()}"


def store_database(root: Path) -> Path:
    """Return the database of the store under `root`, which may not be there yet."""
    return root.resolve() / STORE_FOLDER / "mlflow.db"


def prepare_store(root: Path, experiment: str = EXPERIMENT) -> str:
    """Make sure that the store and the experiment exist, and return the store's URI.

    Several processes may do this at once: a file lock lets one of them set the database up. The
    store under `root` keeps its artifacts in `mlruns/artifacts`; a store of the user's own keeps
    them where it wants.

    Raises
    ------
    InputError
        If the database under `root` is damaged.
    ConnectionError
        If the store of MLFLOW_TRACKING_URI does not answer.
    """
    uri, database = tracking_uri(root), store_database(root)
    if uri != f"sqlite:///{database.as_posix()}":
        with reached(uri), asked_once():
            _ensure_experiment(MlflowClient(tracking_uri=uri), experiment, None)
        return uri
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name("mlflow.lock")):
        try:
            artifacts = database.with_name("artifacts").as_uri()
            _ensure_experiment(MlflowClient(tracking_uri=uri), experiment, artifacts)
            share(database)
        except Exception:
            refuse_damaged(database)
            raise
    return uri


def _ensure_experiment(client: MlflowClient, name: str, artifacts: str | None) -> None:
    known = client.get_experiment_by_name(name)
    if known is None:
        client.create_experiment(name, artifact_location=artifacts)
    elif known.lifecycle_stage == "deleted":
        client.restore_experiment(known.experiment_id)


def open_client(root: Path) -> MlflowClient:
    """Return a client of the store under `root` and of its registry, both of which exist then.

    Raises
    ------
    InputError, ConnectionError
        As in `prepare_store`.
    """
    store = prepare_store(root)
    return MlflowClient(store, os.environ.get("MLFLOW_REGISTRY_URI") or store)


def download_model(root: Path, uri: str, folder: Path) -> Path:
    """Copy what a `models:/` or `runs:/` URI names into a folder; none of its code is run.

    Parameters
    ----------
    uri : str
        `models:/NAME@ALIAS`, `models:/NAME/VERSION` (or `latest`), `models:/MODEL_ID`, or
        `runs:/RUN_ID/PATH`, where the path is a logged model's name or an artifact's.

    Raises
    ------
    InputError
        If there is no store under `root`, or nothing of this name in it.
    """
    store, database = tracking_uri(root), store_database(root)
    if store == f"sqlite:///{database.as_posix()}" and not database.is_file():
        raise InputError(f"{uri}: there are no runs in {database.parent} to take a model from")
    client = MlflowClient(store, os.environ.get("MLFLOW_REGISTRY_URI") or store)
    try:
        with asked_once():
            place = _location(client, uri)
            return Path(download_artifacts(place, dst_path=str(folder), tracking_uri=store))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{uri}: the model must be in the store {store}; {reason}") from error


def _location(client: MlflowClient, uri: str) -> str:
    """Return where the files of a model or run lie, asking only the client's own store."""
    scheme, _, rest = uri.partition(":/")
    name, _, path = rest.strip("/").partition("/")
    if scheme == "runs":
        run = client.get_run(name)
        outputs = run.outputs.model_outputs if run.outputs else []
        for model in (client.get_logged_model(output.model_id) for output in outputs):
            if path in ("", model.name):
                return str(model.artifact_location)
        return f"{run.info.artifact_uri}/{path}"
    if "@" in name:
        model_name, _, alias = name.rpartition("@")
        version = client.get_model_version_by_alias(model_name, alias).version
    elif path.isdigit():
        model_name, version = name, path
    elif path.lower() == "latest":
        versions = client.search_model_versions(f"name='{name}'")
        if not versions:
            raise MlflowException(f"no model is registered as {name!r}")
        model_name, version = name, max(versions, key=lambda v: int(v.version)).version
    elif path:
        raise MlflowException("a registered model is named by @alias, /version or /latest")
    else:
        return str(client.get_logged_model(name).artifact_location)
    place = str(client.get_model_version_download_uri(model_name, version))
    return _location(client, place) if place.startswith(("models:/", "runs:/")) else place


@contextmanager
def reached(uri: str) -> Iterator[None]:
    """Turn what MLflow says of a store that can't be used into one sentence, a ConnectionError."""
    try:
        yield
    except MlflowException as error:
        raise ConnectionError(
            f"{uri}: the store of the runs can't be reached or used; {str(error).splitlines()[0]}"
        ) from error


@contextmanager
def asked_once() -> Iterator[None]:
    """Wait for no server: where nobody answers at once, nobody will, or nobody has to know."""
    known = os.environ[MLFLOW_RETRIES]
    os.environ[MLFLOW_RETRIES] = "0"
    try:
        yield
    finally:
        os.environ[MLFLOW_RETRIES] = known
