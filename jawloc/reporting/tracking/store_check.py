"""What is to be said of the tracking store, without making or changing it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient

from jawloc.reporting.tracking.store import (
    reached,
    refuse_damaged,
    store_database,
    tracking_uri,
    without_retries,
)


def describe_store(root: Path) -> str:
    """Return which store runs are logged to, and how many it has.

    Raises InputError if the database under `root` is damaged or can't be written to, and
    ConnectionError if the store of MLFLOW_TRACKING_URI does not answer.
    """
    uri, database = tracking_uri(root), store_database(root)
    if uri != f"sqlite:///{database.as_posix()}":
        with reached(uri), without_retries():
            MlflowClient(uri).search_experiments(max_results=1)
        return f"{uri} (MLFLOW_TRACKING_URI) answers"
    if not database.exists():
        return f"{database}: none yet; the first training makes it"
    refuse_damaged(database)
    if not os.access(database, os.W_OK) or not os.access(database.parent, os.W_OK):
        raise PermissionError(f"{database}: the store must be one that can be written to")
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (runs,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    return f"{database}: {runs} run{'' if runs == 1 else 's'}"
