"""The schema of MLflow's SQLite databases: made whole or not at all, and never changed unasked."""

from __future__ import annotations

import functools
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from jawloc.errors import InputError
from jawloc.scans.atomic import atomic_path, target_of_temporary

_PREFIX = "sqlite:///"
_ENDINGS = ("", "-journal", "-wal", "-shm")  # of a database and of SQLite's files beside it
_REVISION = re.compile(r"^(revision|down_revision) = [\"'](\w+)[\"']", re.MULTILINE)


def create_database(database: Path) -> None:
    """Make an empty store, so that a process that is killed meanwhile leaves none half-made.

    MLflow's 67 migrations take seconds, and a database in the middle of them is of no use.
    """
    _remove_half_made(database)
    try:
        with atomic_path(database) as temporary:
            MlflowClient(f"{_PREFIX}{temporary.as_posix()}")
    finally:
        _remove_half_made(database)


def _remove_half_made(database: Path) -> None:
    parts = {database.with_name(f"{database.name}{ending}") for ending in _ENDINGS}
    for path in database.parent.glob(".*"):
        if target_of_temporary(path) in parts:
            path.unlink(missing_ok=True)


def refuse_other_schema(uri: str) -> None:
    """Raise InputError if an SQLite store is of another MLflow's schema than the installed one's.

    MLflow itself changes some of the older ones without being asked, and without a copy.
    """
    database = Path(uri.removeprefix(_PREFIX).partition("?")[0])
    found = _revision(database) if uri.startswith(_PREFIX) and database.is_file() else None
    if found is None:
        return
    known, newest = _revisions()
    if newest is None or found == newest:
        return
    how = (
        f"make a copy of the file, then run: mlflow db upgrade {uri}"
        if found in known
        else "upgrade MLflow with: pip install --upgrade mlflow"
    )
    other = "an older" if found in known else "a newer"
    raise InputError(
        f"{database}: the database of earlier runs must fit the installed MLflow "
        f"{mlflow.__version__}, but was made by {other} one (schema {found}); {how}"
    )


@functools.cache
def _revisions() -> tuple[set[str], str | None]:
    """Return the revisions that the installed MLflow knows, and the newest of them."""
    folder = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    known, before = set[str](), set[str]()
    for path in folder.glob("*.py"):
        for name, revision in _REVISION.findall(path.read_text(encoding="utf-8")):
            (before if name == "down_revision" else known).add(revision)
    newest = known - before  # that no other one follows
    return known, newest.pop() if len(newest) == 1 else None


def _revision(database: Path) -> str | None:
    """Return the revision of a database's schema; None where it has none, or can't be read."""
    read_only = f"{database.resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(read_only, uri=True)) as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error:  # who uses the database names the reason
        return None
    return None if row is None else str(row[0])
