"""Where runs are kept: a database under the user's folder, or MLFLOW_TRACKING_URI's store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient, MlflowException

from jawloc.reporting import MLFLOW_RETRIES
from jawloc.reporting.database import refuse_damaged, share

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
