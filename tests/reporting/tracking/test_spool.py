"""What a store does not take waits in a file, and is sent once, in order, when it does."""

import errno
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy
from mlflow import MlflowClient, MlflowException

from jawloc.errors import DiskFullError, InputError
from jawloc.reporting.folders.run_folder import UNSENT
from jawloc.reporting.tracking import MLFLOW_RETRIES, MLFLOW_TIMEOUT, schema, spool, waiting_sqlite
from jawloc.reporting.tracking.runs import send_unsent, tracked_run
from jawloc.reporting.tracking.store import briefly, prepare_store, tracking_uri
from tests.lab import write_model
from tests.reporting.tracking.test_runs import record

PICTURE = np.full((10, 10, 3), 255, np.uint8)
WRITING = ("log_batch", "log_image", "log_artifact", "log_dict", "log_inputs", "set_terminated")


@pytest.fixture
def root(copy_store, tmp_path):
    copy_store(tmp_path)
    return tmp_path


@pytest.fixture
def unsent(root):
    (root / "run").mkdir()
    return root / "run" / UNSENT


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(spool, "LAST_TRIES_SECONDS", 0.0)


class Outage:
    """A store that is away between `begin` and `end`; counts what it was asked meanwhile."""

    def __init__(self, monkeypatch):
        self.patch, self.asked = monkeypatch, 0

    def begin(self):
        def away(*_, **__):
            self.asked += 1
            raise MlflowException("the server\nis not there")

        self.before = {name: getattr(MlflowClient, name) for name in (*WRITING, "get_run")}
        for name in self.before:
            self.patch.setattr(MlflowClient, name, away)

    def end(self):
        for name, method in self.before.items():
            self.patch.setattr(MlflowClient, name, method)


@pytest.fixture
def outage(monkeypatch):
    return Outage(monkeypatch)


def log_everything(run, root):
    (root / "run" / "a.txt").write_text("a file")
    weights = write_model(root / "run" / "m.pth")
    run.log_epoch(record(2))
    run.log_heatmap(PICTURE, "heatmap/val", 2)
    run.log_file(root / "run" / "a.txt", "outputs")
    run.log_dict({"a": 1}, "a.json")
    run.log_dataset({"train": ["x"]}, {"x": "key"})
    run.log_summary({"test_error_mm": 0.5, "unknown": None})
    run.tag({"state": "complete"})
    run.log_locator(weights)


def contents(root, run_id):
    """Return what the store has of a run."""
    client = MlflowClient(tracking_uri(root))
    run = client.get_run(run_id)
    history = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
    experiment = run.info.experiment_id
    return {
        "status": run.info.status,
        "steps": {key: [m.step for m in values] for key, values in history.items()},
        "tag": run.data.tags.get("state"),
        "files": sorted(f.path for f in client.list_artifacts(run_id)),
        "outputs": [f.path for f in client.list_artifacts(run_id, "outputs")],
        "images": len(client.list_artifacts(run_id, "images")),
        "datasets": [i.dataset.name for i in run.inputs.dataset_inputs],
        "models": [str(m.status) for m in client.search_logged_models([experiment])],
        "end_time": run.info.end_time,
    }


def assert_whole(found):
    assert found["status"] == "FINISHED"
    assert found["tag"] == "complete"
    assert found["files"] == ["a.json", "dataset.json", "images", "outputs"]
    assert found["outputs"] == ["outputs/a.txt"]
    assert found["images"] == 2  # a picture and its small copy
    assert found["datasets"] == ["train scans"]
    assert found["models"] == ["READY"]
    assert found["steps"]["val/kl"] == [1, 2]
    assert found["steps"]["test_error_mm"] == [0]


def test_a_run_goes_on_without_its_store_and_its_log_is_sent_later(root, unsent, outage, capsys):
    """Regression: a server that went away in the night ended the training."""
    with tracked_run(root, "m", params={"a": 1}, unsent=unsent) as run:
        run.log_epoch(record(1))
        assert not unsent.exists()
        outage.begin()
        log_everything(run, root)
        ended = time.time()
    first, last = capsys.readouterr().err.splitlines()
    store = tracking_uri(root)
    assert first == (
        f"warning: {store}: the store of the runs can't be used; the training goes on, and what it "
        f"logs waits in {unsent} (the server)"
    )
    assert last == (
        f"warning: {store}: the store of the runs still can't be used; the same command with "
        f"--resume sends what waits in {unsent}"
    )
    with pytest.raises(ConnectionError, match="the server"):
        send_unsent(root, unsent)
    outage.end()
    waiting = unsent.read_text(encoding="utf-8")
    send_unsent(root, unsent)
    found = contents(root, run.run_id)
    assert_whole(found)
    assert abs(found["end_time"] / 1000 - ended) < 60  # when it ended, not when that was sent
    assert not unsent.exists()

    # a process that was killed at its end sends everything again
    unsent.write_text(waiting, encoding="utf-8")
    send_unsent(root, unsent)
    assert contents(root, run.run_id) == found


def log_through(outage, run):
    """Log three epochs, during the second of which the store is away."""
    run.log_epoch(record(1))
    outage.begin()
    run.log_epoch(record(2))
    outage.end()
    run.log_epoch(record(3))


def test_what_waits_is_sent_as_soon_as_the_store_answers(root, unsent, outage, monkeypatch, capsys):
    monkeypatch.setattr(spool, "FIRST_PAUSE_SECONDS", 0.0)
    with tracked_run(root, "m", params={}, unsent=unsent) as run:
        log_through(outage, run)
        assert not unsent.exists()
        assert contents(root, run.run_id)["steps"]["val/kl"] == [1, 2, 3]
    assert capsys.readouterr().err.splitlines()[1].endswith("all that waited for it has been sent")


def test_what_arrived_while_only_its_answer_was_lost_is_sent_once(
    root, unsent, outage, monkeypatch
):
    """Regression: after a second outage, what the store had was known from the first.

    A database leaves out what it has to the millisecond; a store of files has it twice then.
    """
    monkeypatch.setattr(spool, "FIRST_PAUSE_SECONDS", 0.0)
    log, arrived = MlflowClient.log_batch, []

    def counted(*arguments, **given):
        arrived.extend(m.step for m in given.get("metrics", ()) if m.key == "val/kl")
        return log(*arguments, **given)

    def answer_lost(*arguments, **given):
        counted(*arguments, **given)
        raise MlflowException("timeout")

    monkeypatch.setattr(MlflowClient, "log_batch", counted)

    with tracked_run(root, "m", params={}, unsent=unsent) as run:
        log_through(outage, run)
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "log_batch", answer_lost)
            run.log_epoch(record(4))
        run.log_epoch(record(5))
    assert arrived == [1, 2, 3, 4, 5]
    assert contents(root, run.run_id)["steps"]["val/kl"] == arrived


def test_a_store_that_is_away_is_left_alone_for_a_while(root, unsent, outage):
    with tracked_run(root, "m", params={}, unsent=unsent) as run:
        outage.begin()
        for epoch in range(1, 30):
            run.log_epoch(record(epoch))
        assert outage.asked == 1
        outage.end()
    assert contents(root, run.run_id)["steps"]["val/kl"] == list(range(1, 30))


def test_the_end_of_a_run_waits_for_a_store_that_comes_back(root, unsent, outage, monkeypatch):
    monkeypatch.setattr(spool, "LAST_TRIES_SECONDS", 60.0)
    monkeypatch.setattr(spool, "BETWEEN_LAST_TRIES_SECONDS", 0.0)
    send_all = spool.Spool.send_all
    monkeypatch.setattr(spool.Spool, "send_all", lambda own: (outage.end(), send_all(own)))
    with tracked_run(root, "m", params={}, unsent=unsent) as run:
        outage.begin()
        run.log_epoch(record(1))
    found = contents(root, run.run_id)
    assert (found["status"], found["steps"]["val/kl"]) == ("FINISHED", [1])
    assert not unsent.exists()


def test_an_interrupted_run_is_resumed_with_what_waits_or_without_its_store(root, unsent, outage):
    with (
        pytest.raises(KeyboardInterrupt),
        tracked_run(root, "m", params={"a": 1}, unsent=unsent) as run,
    ):
        outage.begin()
        run.log_epoch(record(1))
        raise KeyboardInterrupt
    words = {"params": {"a": 2}, "run_id": run.run_id, "unsent": unsent}
    with tracked_run(root, "m", **words) as again:  # it is still away
        again.log_epoch(record(2))
    outage.end()
    with tracked_run(root, "m", **words) as again:
        assert contents(root, run.run_id)["status"] == "RUNNING"
        again.log_epoch(record(3))
    found = contents(root, run.run_id)
    assert (found["status"], found["steps"]["val/kl"]) == ("FINISHED", [1, 2, 3])
    params = MlflowClient(tracking_uri(root)).get_run(run.run_id).data
    assert (params.params["a"], params.tags["resumed.a"]) == ("1", "2")


def test_an_epoch_that_a_resumed_run_repeats_is_logged_once(root, unsent):
    """Regression: a disk that was full after an epoch was logged left it in the store twice."""
    with (
        pytest.raises(OSError, match="full"),
        tracked_run(root, "m", params={}, unsent=unsent) as run,
    ):
        run.log_epoch(record(1))
        run.log_heatmap(PICTURE, "heatmap/val", 1)
        raise OSError("the disk is full")
    with tracked_run(root, "m", params={}, run_id=run.run_id, unsent=unsent) as again:
        again.log_epoch(record(1))
        again.log_heatmap(PICTURE, "heatmap/val", 1)
        again.log_epoch(record(2))
        again.log_heatmap(PICTURE, "heatmap/val", 2)
    found = contents(root, run.run_id)
    assert (found["steps"]["val/kl"], found["images"]) == ([1, 2], 4)


def test_a_run_that_is_not_in_the_store_keeps_nothing(root, unsent):
    refused = pytest.raises(InputError, match="can only be resumed in the tracking store")
    with refused, tracked_run(root, "m", params={}, run_id="0123" * 8, unsent=unsent):
        pass
    assert not unsent.exists()


def test_a_line_that_was_torn_is_left_out(root, unsent, outage):
    with tracked_run(root, "m", params={}, unsent=unsent) as run:
        outage.begin()
        run.log_epoch(record(1))
        with unsent.open("a", encoding="utf-8") as file:
            file.write('\n{"call": "metrics", "cont')  # as a killed process leaves it
        run.log_epoch(record(2))
    outage.end()
    send_unsent(root, unsent)
    assert contents(root, run.run_id)["steps"]["val/kl"] == [1, 2]


@pytest.mark.parametrize("resumed", [True, False])
def test_a_run_that_was_deleted_in_the_ui_is_brought_back(root, unsent, capsys, resumed):
    """Regression: what it logged waited for ever."""
    with suppress(KeyboardInterrupt), tracked_run(root, "m", params={}, unsent=unsent) as run:
        run.log_epoch(record(1))
        run.client.delete_run(run.run_id)
        run.log_epoch(record(2))
        raise KeyboardInterrupt
    assert unsent.is_file()
    if resumed:
        with tracked_run(root, "m", params={}, run_id=run.run_id, unsent=unsent) as again:
            again.log_epoch(record(3))
    else:
        send_unsent(root, unsent)
    assert not unsent.exists()
    assert contents(root, run.run_id)["steps"]["val/kl"] == [1, 2, 3][: 2 + resumed]
    assert f"note: run {run.run_id} was deleted in MLflow; it is back\n" in capsys.readouterr().err
    assert run.client.get_run(run.run_id).info.lifecycle_stage == "active"


def test_what_waits_of_another_run_is_not_sent_to_this_one(root, unsent, outage):
    with tracked_run(root, "old", params={}, unsent=unsent) as old:
        outage.begin()
        old.log_epoch(record(1))
    outage.end()
    with tracked_run(root, "new", params={}, unsent=unsent) as new:
        new.log_epoch(record(5))
        outage.begin()
        new.log_epoch(record(6))
        outage.end()
    assert contents(root, new.run_id)["steps"]["val/kl"] == [5, 6]
    assert contents(root, old.run_id)["steps"] == {}


def test_a_full_disk_ends_a_run_that_can_not_keep_its_log(root, unsent, outage, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    said = rf"^{re.escape(str(unsent.parent))}: the disk is full; {UNSENT} needs"
    with (
        pytest.raises(DiskFullError, match=said),
        tracked_run(root, "m", params={}, unsent=unsent) as run,
    ):
        outage.begin()
        monkeypatch.setattr(Path, "open", full)
        run.log_epoch(record(1))


def test_brief_waits_are_the_users_own_where_there_are_any(monkeypatch):
    monkeypatch.setenv(MLFLOW_RETRIES, "5")
    monkeypatch.delenv(MLFLOW_TIMEOUT, raising=False)
    with briefly():
        assert (os.environ[MLFLOW_RETRIES], os.environ[MLFLOW_TIMEOUT]) == ("1", "10")
    assert os.environ[MLFLOW_RETRIES] == "5"
    assert MLFLOW_TIMEOUT not in os.environ
    monkeypatch.setenv(MLFLOW_RETRIES, "7")
    monkeypatch.setenv(MLFLOW_TIMEOUT, "99")
    with briefly():
        assert (os.environ[MLFLOW_RETRIES], os.environ[MLFLOW_TIMEOUT]) == ("7", "99")


# --- the database -------------------------------------------------------------------------------


def set_revision(root, revision):
    with closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        database.commit()


@pytest.mark.parametrize("age", ["older", "newer"])
def test_a_store_of_another_schema_is_left_alone_with_what_to_do(root, age):
    """Regression: a traceback, or MLflow changed it without being asked."""
    known, newest = schema._revisions()
    assert newest in known
    revision = sorted(known - {newest})[0] if age == "older" else "0123456789ab"
    set_revision(root, revision)
    database = root / "mlruns" / "mlflow.db"
    before = database.read_bytes()
    with pytest.raises(InputError) as caught:
        prepare_store(root)
    said = str(caught.value)
    assert said.startswith(
        f"{database}: the database of earlier runs must fit the installed MLflow"
    )
    command = f"mlflow db upgrade {tracking_uri(root)}"
    assert said.endswith(command if age == "older" else "pip install --upgrade mlflow")
    assert revision in said
    assert "\n" not in said
    assert database.read_bytes() == before


def test_a_store_in_a_folder_that_can_not_be_written_to_is_a_sentence(tmp_path):
    """Regression: the system's error about a lock file that the user has never heard of."""
    (tmp_path / "mlruns").write_text("a file")
    with pytest.raises(InputError, match="mlruns: the store of the runs must be a folder that can"):
        prepare_store(tmp_path)


def test_a_store_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    """Regression: a process that was killed in the middle left a database of no use."""
    database = tmp_path / "mlruns" / "mlflow.db"
    database.parent.mkdir()
    for name in ("mlflow.db", "mlflow.db-journal"):
        database.with_name(f".4711-0123abcd.part.{name}").write_text("of a killed process")

    def killed(uri):
        temporary, _ = sorted(database.parent.iterdir())
        assert uri == f"sqlite:///{temporary.as_posix()}"
        raise KeyboardInterrupt

    class HalfMade:
        def __init__(self, uri):
            Path(uri.removeprefix("sqlite:///") + "-journal").write_text("half")
            Path(uri.removeprefix("sqlite:///")).write_text("half")
            killed(uri)

    monkeypatch.setattr(schema, "MlflowClient", HalfMade)
    with pytest.raises(KeyboardInterrupt):
        schema.create_database(database)
    assert list(database.parent.iterdir()) == []


HOLD = """
import sqlite3, sys, time
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def test_mlflow_waits_for_a_locked_file_longer_than_sqlite_does(root, monkeypatch):
    """Regression: 20 s after another program had locked it, a study ended."""
    path = root / "mlruns" / "mlflow.db"
    command = [sys.executable, "-c", HOLD, str(path), "1.5"]
    engine = sqlalchemy.create_engine(tracking_uri(root))
    write = "UPDATE experiments SET name = name"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout = 1")
                with waiting_sqlite.waiting_once(), pytest.raises(sqlalchemy.exc.OperationalError):
                    connection.exec_driver_sql(write)
                connection.rollback()
                connection.exec_driver_sql(write)
        finally:
            holder.kill()


def test_pictures_come_back_from_their_text():
    from jawloc.reporting.tracking.sending import Sender, as_png

    picture = np.random.default_rng(0).integers(0, 255, (5, 4, 3), dtype=np.uint8)
    seen = []

    class Client:
        def log_image(self, run_id, image, key, step):
            seen.append((run_id, image, key, step))

    content = json.loads(json.dumps({"picture": picture, "key": "a/b", "step": 3}, default=as_png))
    Sender(Client(), "id").send("picture", content)
    ((run_id, image, key, step),) = seen
    np.testing.assert_array_equal(image, picture)
    assert (run_id, key, step) == ("id", "a/b", 3)
