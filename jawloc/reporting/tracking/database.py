"""The SQLite file under MLflow's store."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from jawloc.errors import InputError


def share(database: Path) -> None:
    """Let readers (the UI) and writers (other runs) not wait for each other, from now on."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def refuse_damaged(database: Path, wait_seconds: float = 5.0) -> None:
    """Raise InputError if SQLite can't make sense of the file; it reads all of it to know."""
    try:
        with closing(sqlite3.connect(database, timeout=wait_seconds)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return  # locked or out of reach, which says nothing about what is in it
        verdict = str(error)
    if verdict != "ok":
        raise InputError(
            f"{database}: the database of earlier runs is damaged, and training goes on with a "
            f"new one once you move it away; {' '.join(verdict.split())}"
        ) from None
