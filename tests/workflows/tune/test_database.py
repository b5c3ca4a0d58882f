"""A study in a real PostgreSQL, tracked by a real MLflow server on it, worked on by three machines.

The machines are three commands in folders of their own, with the same scans.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy
from mlflow import MlflowClient
from sqlalchemy.pool import NullPool

from jawloc.config import load_config
from jawloc.workflows.tune.database import postgresql_lock, with_driver
from jawloc.workflows.tune.study import StudyConfig, one_at_a_time
from tests.lab import write_config
from tests.workflows.tune.machines import FORKS, SECONDS, Machine, pid_of, run_server, trials_in
from tests.workflows.tune.test_tune import tune_words

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def programs():
    """Return the folder of PostgreSQL's programs, which Debian keeps off the path."""
    found = shutil.which("initdb")
    every = [Path(found)] if found else Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return next((path.resolve().parent for path in every), None)


class Database:
    """A PostgreSQL of the test's own."""

    def __init__(self, folder, home):
        # it refuses to run as root, so that it needs a user and a folder that this one can reach
        self.user = "postgres" if os.geteuid() == 0 else None
        self.folder, self.home, self.port = folder, home, free_port()
        self.url = f"postgresql://jawloc@127.0.0.1:{self.port}"  # without a database's name
        if self.user is not None:
            shutil.chown(home, self.user)
        self.run("initdb", "--no-sync", "-D", self.data, "-U", "jawloc", "-A", "trust")

    @property
    def data(self):
        return str(self.home / "data")

    def run(self, name, *words):
        command = [self.folder / name, *words]
        subprocess.run(
            command, user=self.user, cwd=self.home, check=True, stdout=subprocess.DEVNULL
        )

    def start(self):
        options = f"-p {self.port} -h 127.0.0.1 -k {self.home} -c fsync=off"
        log = str(self.home / "log")
        self.run("pg_ctl", "-D", self.data, "-l", log, "-o", options, "-w", "start")

    def create(self, name):
        host = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "jawloc"]
        self.run("createdb", *host, name)
        return f"{self.url}/{name}"

    def stop(self):
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")


@pytest.fixture(scope="session")
def database():
    """Yield a running PostgreSQL with a database for studies and one for runs."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (Debian's package is called postgresql)")
    pytest.importorskip("psycopg", reason="the database's driver is not installed (psycopg)")
    home = Path(tempfile.mkdtemp(prefix="jawloc-postgresql-"))
    database = Database(folder, home)
    database.start()
    try:
        for name in ("study", "runs"):
            database.create(name)
        yield database
    finally:
        database.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def mlflow_server(store, folder, port):
    """Run an MLflow server, and yield its address."""
    folder.mkdir(exist_ok=True)
    words = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", store, "--artifacts-destination", str(folder)]
    process = FORKS.Process(target=run_server, args=(folder, words))
    process.start()
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + SECONDS
        while not answers(f"{address}/health"):
            assert process.is_alive(), (folder / "said").read_text(encoding="utf-8")
            assert time.monotonic() < until, (folder / "said").read_text(encoding="utf-8")
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.join(60)


@pytest.fixture(scope="session")
def tracking(database, tmp_path_factory):
    """Yield the address of an MLflow server whose store is in the database."""
    store = database.url.replace("postgresql://", "postgresql+psycopg://") + "/runs"
    with mlflow_server(store, tmp_path_factory.mktemp("mlflow"), free_port()) as address:
        yield address


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def test_machines_that_begin_at_once_make_the_tables_one_after_the_other(
    database, make_lab, tmp_path
):
    """Regression: each made them before it had the lock, and one of them failed."""
    storage, begun = database.create("begin"), threading.Event()
    study, config = StudyConfig("s", storage=storage), load_config(write_config(make_lab(tmp_path)))

    def begin():
        with one_at_a_time(study, config):
            begun.set()

    with postgresql_lock(storage, "jawloc"):
        machine = threading.Thread(target=begin)
        machine.start()
        assert not begun.wait(1.0)
        engine = sqlalchemy.create_engine(with_driver(storage), poolclass=NullPool)
        assert sqlalchemy.inspect(engine).get_table_names() == []
    machine.join(SECONDS)
    assert begun.is_set()
    assert "studies" in sqlalchemy.inspect(engine).get_table_names()


def test_three_machines_share_a_study_and_one_is_killed(database, tracking, make_lab, tmp_path):
    storage, machines = f"{database.url}/study", []
    for number in range(3):
        lab = make_lab(tmp_path / f"machine_{number}")
        words = [*tune_words(lab), "--trials", "5", "--storage", storage]
        # as long as a machine that has other work may keep a held trial from its heartbeats
        waits = {"HEARTBEAT_SECONDS": 1, "GRACE_SECONDS": 30}
        machines.append(
            Machine(lab, words, waits=waits, environment={"MLFLOW_TRACKING_URI": tracking})
        )
    try:
        begun = machines[0].wait_for_trials(lambda: trials_in(storage), 3, beside=machines[1:])
        assert {pid_of(trial) for trial in begun} == {m.process.pid for m in machines}
        machines[0].kill()
        for machine in machines[1:]:
            machine.go_on()
        for machine in machines[1:]:
            machine.ends_with(0)
    finally:
        for machine in machines:
            machine.kill()

    trials = trials_in(storage)
    states = [trial.state.name for trial in trials]
    assert states.count("COMPLETE") >= 5  # of each machine the last may be one too many
    assert states.count("FAIL") == 1
    assert set(states) == {"COMPLETE", "FAIL"}
    lost = trials[states.index("FAIL")]
    assert pid_of(lost) == machines[0].process.pid
    assert any(t.params == lost.params for t in trials if t.state.name == "COMPLETE")

    client = MlflowClient(tracking_uri=tracking)
    known = client.get_experiment_by_name("jaw_location")
    runs = client.search_runs([known.experiment_id])
    (parent,) = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    nested = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(nested) == len(runs) - 1
    shown = {run.info.run_id: run.data.tags["optuna.state"] for run in nested}
    assert shown == {
        trial.user_attrs["mlflow_run_id"]: "lost" if trial is lost else "complete"
        for trial in trials
    }


def test_a_database_that_goes_away_loses_no_trial(database, make_lab, tmp_path):
    """Regression: a heartbeat meanwhile failed in a thread of Optuna's, with a traceback."""
    storage = f"{database.url}/study"
    lab = make_lab(tmp_path / "lab")
    words = [*tune_words(lab), "--trials", "2", "--storage", storage, "--study-name", "outage"]
    machine = Machine(lab, words, waits={"HEARTBEAT_SECONDS": 1})
    machine.wait_for_trials(lambda: trials_in(storage, "outage"))
    database.stop()
    time.sleep(3)  # for some heartbeats that fail
    machine.go_on()
    try:
        said = machine.ends_with(2)
    finally:
        database.start()
    assert "Traceback" not in said
    assert f"Error: --storage: {storage} could not be reached any more; once it can" in said

    Machine(lab, words, hold=False, waits={"GRACE_SECONDS": 4}).ends_with(0)
    trials = trials_in(storage, "outage")
    states = [trial.state.name for trial in trials]
    assert (states.count("COMPLETE"), states.count("FAIL")) == (2, 1)
    assert trials[states.index("FAIL")].params in [t.params for t in trials if t.values]


def test_a_tracking_server_that_goes_away_loses_no_trial(make_lab, tmp_path):
    lab, port = make_lab(tmp_path / "lab"), free_port()
    store, storage = f"sqlite:///{lab / 'mlruns' / 'mlflow.db'}", str(tmp_path / "study.journal")
    words = [*tune_words(lab), "--trials", "2", "--storage", storage]
    with mlflow_server(store, tmp_path / "mlflow", port) as address:
        environment = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
        machine = Machine(lab, words, environment=environment)
        machine.wait_for_trials(lambda: trials_in(storage))
    machine.go_on()
    said = machine.ends_with(2)
    assert "Traceback" not in said
    assert f"Error: {address}: the store of the runs can't be reached or used; " in said

    with mlflow_server(store, tmp_path / "mlflow", port):
        Machine(lab, words, hold=False, environment=environment).ends_with(0)
        states = [trial.state.name for trial in trials_in(storage)]
        assert (states.count("COMPLETE"), states.count("FAIL")) == (2, 1)
        client = MlflowClient(tracking_uri=address)
        known = client.get_experiment_by_name("jaw_location")
        runs = client.search_runs([known.experiment_id])
    shown = sorted((run.data.tags["kind"], run.data.tags["optuna.state"]) for run in runs)
    trials = [("trial", "complete"), ("trial", "complete"), ("trial", "lost")]
    assert shown == [("study", "complete"), *trials]
