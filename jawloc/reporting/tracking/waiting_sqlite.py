"""An SQLite connection that waits for minutes while another process holds the file locked.

SQLite's own waiting can't be interrupted and does not cover every lock, so each wait is short, and
repeated.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

LOCK_SECONDS = 240.0  # until a file that stays locked is given up
ONE_WAIT_SECONDS = 2.0  # of SQLite's own, after which Ctrl-C is noticed
PAUSE_SECONDS = 0.05  # where SQLite doesn't wait at all

_impatient = False

Result = TypeVar("Result")


def _waiting(attempt: Callable[[], Result]) -> Result:
    """Repeat what fails because the database is locked; it has changed nothing."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return attempt()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or _impatient or time.monotonic() > until:
                raise
        time.sleep(PAUSE_SECONDS)


@contextmanager
def waiting_once() -> Iterator[None]:
    """Give a locked file up after SQLite's own wait, in this process, while the block lasts."""
    global _impatient
    before, _impatient = _impatient, True
    try:
        yield
    finally:
        _impatient = before


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:
        return _waiting(lambda: super(_Cursor, self).execute(sql, parameters))

    def executemany(self, sql: str, parameters: Any, /) -> _Cursor:
        return _waiting(lambda: super(_Cursor, self).executemany(sql, parameters))


class _Connection(sqlite3.Connection):
    def cursor(self, *_: Any) -> _Cursor:  # type: ignore[override]
        return super().cursor(_Cursor)

    def commit(self) -> None:
        _waiting(super().commit)


# for SQLAlchemy's `create_engine`
CONNECT_ARGUMENTS = {"factory": _Connection, "timeout": ONE_WAIT_SECONDS}
