"""A study's database: its driver, its heartbeats, and a lock between machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import optuna
import sqlalchemy
from optuna.storages import RDBStorage


class Database(RDBStorage):
    """Optuna's storage, in which a heartbeat that fails doesn't end all others."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Record that a trial's process lives."""
        # In a thread of Optuna's, where an error would end the heartbeats with a traceback. If the
        # database stays away, the trial says so; if it comes back, the next heartbeat gets through.
        with suppress(optuna.exceptions.StorageInternalError):
            super().record_heartbeat(trial_id)


def with_driver(storage: str) -> str:
    """Return a database's URL with the driver that jawloc installs."""
    return storage.replace("postgresql://", "postgresql+psycopg://", 1)


def is_postgresql(storage: str | None) -> bool:
    """Return whether a study's storage is a PostgreSQL database, which machines share."""
    return storage is not None and storage.startswith("postgresql")


@contextmanager
def postgresql_lock(storage: str, name: str) -> Iterator[None]:
    """Hold a lock of this name in a PostgreSQL database; others wait for it."""
    engine = sqlalchemy.create_engine(with_driver(storage))
    with engine.begin() as connection:
        lock = sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtext(:name))")
        connection.execute(lock, {"name": name})
        yield
