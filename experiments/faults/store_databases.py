"""The database of the store: locked, of another schema, or half-made by a killed process."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import tiny_project as tiny
from campaign import Outcome
from store_bench import (
    RESULTS,
    TRAIN,
    UNSENT,
    Bench,
    complete,
    moments_of_training,
    sent,
    sentence,
    some,
)
from tiny_project import judged


def locked(bench: Bench) -> Iterator[Outcome]:
    """Another program holds the database for a minute; in the short form, for a second."""
    seconds = 1.0 if bench.plan.short else 65.0
    moments = ["at the start", *list(moments_of_training())[1:2], "before the results are logged"]
    for moment in some(bench, moments, 1):
        base = bench.project()
        hold = partial(_hold, base / "mlruns" / "mlflow.db", seconds)
        if moment == "at the start":
            hold()
            said = tiny.run(base, *TRAIN)
        else:
            with tiny.at_call(*moments_of_training()[moment], hold):
                said = tiny.run(base, *TRAIN)
        wrong = [] if said.code == 0 else [f"exit code {said.code}: {said.error[-500:]!r}"]
        if (base / RESULTS / UNSENT).exists():
            wrong += sent(base)
        elif not wrong:
            wrong += complete(base)
        yield judged(f"SQLite locked for {seconds:.0f} s", moment, wrong)


def _hold(database: Path, seconds: float) -> None:
    held = threading.Event()

    def hold() -> None:
        with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            held.set()
            time.sleep(seconds)

    threading.Thread(target=hold, daemon=True).start()
    held.wait()


def other_schemas(bench: Bench) -> Iterator[Outcome]:
    """The store is of an older or a newer MLflow: a sentence with the command, nothing changed."""
    from jawloc.reporting.tracking.schema import _revisions

    known, newest = _revisions()
    older = sorted(known - {newest})
    revisions = {**{f"older: {r}": r for r in some(bench, older, 1)}, "newer": "0123456789ab"}
    base = bench.project()
    database = base / "mlruns" / "mlflow.db"
    for kind, revision in revisions.items():
        with contextlib.closing(sqlite3.connect(database)) as store:
            store.execute("UPDATE alembic_version SET version_num = ?", (revision,))
            store.commit()
        before = database.read_bytes()
        said = tiny.run(base, *TRAIN)
        command = f"mlflow db upgrade sqlite:///{database}" if kind != "newer" else "pip install"
        wrong = sentence(said, str(database), command)
        wrong += ["the database was changed"] if database.read_bytes() != before else []
        wrong += ["something was left"] if (base / "script_output").exists() else []
        yield judged(f"a store of {kind.partition(':')[0]} schema", kind, wrong)


def killed_while_made(bench: Bench) -> Iterator[Outcome]:
    """A process is killed while it makes the first store; the next one finds none half-made."""
    from jawloc.reporting.tracking.store import prepare_store

    for number in range(1 if bench.plan.short else 20):
        root = bench.work / f"fresh{number}"
        root.mkdir()
        process = tiny.in_child(partial(prepare_store, root))
        patience = bench.random.uniform(0.2, 1.0 if bench.plan.short else 6.0)
        time.sleep(patience)
        os.kill(process, signal.SIGKILL)
        killed = tiny.end_of(process) < 0
        database = root / "mlruns" / "mlflow.db"
        wrong = []
        if database.is_file():
            with contextlib.closing(sqlite3.connect(database)) as store:
                found = store.execute("SELECT count(*) FROM alembic_version").fetchone()
            wrong += [] if found == (1,) else ["half-made"]
        if not bench.plan.short:
            try:
                prepare_store(root)
            except Exception as error:  # whatever it is, it is wrong
                wrong.append(f"{type(error).__name__}: {error}")
            wrong += [f"left: {left}"] if (left := tiny.temporary_files(root)) else []
        detail = f"after {patience:.2f} s, {'killed' if killed else 'done before'}"
        yield judged("killed while it makes the store", detail, wrong)
