"""SQLite that waits for other processes: one that holds the file locked is waited for, for minutes.

SQLite's own waiting can't be interrupted, so each wait is short, and repeated.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

LOCK_SECONDS = 240.0  # until a file that stays locked is given up
ONE_WAIT_SECONDS = 2.0  # of SQLite's own: so late may Ctrl-C be heard
PAUSE_SECONDS = 0.05  # where SQLite doesn't wait at all

Result = TypeVar("Result")


def waiting(attempt: Callable[[], Result]) -> Result:
    """Repeat what fails because a database is locked, until it is free or patience ends."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(PAUSE_SECONDS)


class WaitingCursor(sqlite3.Cursor):
    """A cursor whose statements wait."""

    def execute(self, sql: str, parameters: Any = (), /) -> WaitingCursor:
        """Run a statement; what failed because of a lock has changed nothing."""
        return waiting(lambda: super(WaitingCursor, self).execute(sql, parameters))

    def executemany(self, sql: str, parameters: Any, /) -> WaitingCursor:
        """Run a statement with many rows; only before the first can it meet a lock."""
        return waiting(lambda: super(WaitingCursor, self).executemany(sql, parameters))


class WaitingConnection(sqlite3.Connection):
    """A connection whose statements and commits wait."""

    def cursor(self, *_: Any) -> WaitingCursor:  # type: ignore[override]
        """Return a cursor that waits."""
        return super().cursor(WaitingCursor)

    def commit(self) -> None:
        """Commit, once nobody reads any more; until then the transaction stays open."""
        waiting(super().commit)


def connect_arguments() -> dict[str, Any]:
    """Return what SQLAlchemy's engine needs to know to connect like this."""
    return {"factory": WaitingConnection, "timeout": ONE_WAIT_SECONDS}
