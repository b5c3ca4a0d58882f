"""A study in a real PostgreSQL, tracked by a real MLflow server on it, worked on by three machines.

The machines are three commands in folders of their own, with the same scans.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.pool import NullPool

from tests.workflows.tune.test_tune import CHECKOUT, tune_words

SECONDS = 600  # a machine's patience; other tests may run beside this one
pytestmark = pytest.mark.xdist_group("database")  # all in one process, which starts it once


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
        self.run("initdb", "-D", self.data, "-U", "jawloc", "-A", "trust")

    @property
    def data(self):
        return str(self.home / "data")

    def run(self, name, *words):
        command = [self.folder / name, *words]
        subprocess.run(
            command, user=self.user, cwd=self.home, check=True, stdout=subprocess.DEVNULL
        )

    def start(self):
        options = f"-p {self.port} -h 127.0.0.1 -k {self.home}"
        log = str(self.home / "log")
        self.run("pg_ctl", "-D", self.data, "-l", log, "-o", options, "-w", "start")

    def stop(self):
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")


@pytest.fixture(scope="module")
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
            host = ["-h", "127.0.0.1", "-p", str(database.port), "-U", "jawloc"]
            database.run("createdb", *host, name)
        yield database
    finally:
        database.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def mlflow_server(store, folder, port):
    """Run an MLflow server, and yield its process and its address."""
    folder.mkdir(exist_ok=True)
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--backend-store-uri", store, "--artifacts-destination", str(folder)]
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, *words, "--workers", "1"], stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + SECONDS
        while not answers(f"{address}/health"):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


@pytest.fixture(scope="module")
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


def test_three_machines_share_a_study_and_one_is_killed(database, tracking, make_lab, tmp_path):
    storage, machines = f"{database.url}/study", []
    for number in range(3):
        lab = make_lab(tmp_path / f"machine_{number}")
        words = ["--trials", "5", "--epochs", "30", "--storage", storage]
        machines.append(start_machine(lab, words, MLFLOW_TRACKING_URI=tracking))
    try:
        wait_for_a_trial(storage, machines[0])
        machines[0][0].kill()
        for machine in machines[1:]:
            ends_with(machine, 0)
    finally:
        for machine, _ in machines:
            machine.kill()
            machine.wait()

    trials = study_in(storage).trials
    states = [trial.state.name for trial in trials]
    assert states.count("COMPLETE") >= 5  # of each machine the last may be one too many
    assert states.count("FAIL") == 1
    assert set(states) == {"COMPLETE", "FAIL"}
    lost = trials[states.index("FAIL")]
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
    storage = f"{database.url}/study"
    lab = make_lab(tmp_path / "lab")
    words = ["--trials", "2", "--epochs", "30", "--storage", storage, "--study-name", "outage"]
    machine = start_machine(lab, words)
    wait_for_a_trial(storage, machine, "outage")
    database.stop()
    try:
        said = ends_with(machine, 2)
    finally:
        database.start()
    assert "Traceback" not in said
    assert f"Error: --storage: {storage} could not be reached any more; once it can" in said

    ends_with(start_machine(lab, words), 0)
    trials = study_in(storage, "outage").trials
    states = [trial.state.name for trial in trials]
    assert (states.count("COMPLETE"), states.count("FAIL")) == (2, 1)
    assert trials[states.index("FAIL")].params in [t.params for t in trials if t.values]


def test_a_tracking_server_that_goes_away_loses_no_trial(make_lab, tmp_path):
    lab, store, port = make_lab(tmp_path / "lab"), f"sqlite:///{tmp_path / 'runs.db'}", free_port()
    storage = str(tmp_path / "study.journal")
    words = ["--trials", "2", "--epochs", "30", "--storage", storage]
    with mlflow_server(store, tmp_path / "mlflow", port) as address:
        environment = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
        machine = start_machine(lab, words, **environment)
        wait_for_a_trial(storage, machine)
    said = ends_with(machine, 2)
    assert "Traceback" not in said
    assert f"Error: {address}: the store of the runs can't be reached or used; " in said

    with mlflow_server(store, tmp_path / "mlflow", port):
        ends_with(start_machine(lab, words, **environment), 0)
        states = [trial.state.name for trial in study_in(storage).trials]
        assert (states.count("COMPLETE"), states.count("FAIL")) == (2, 1)
        runs = MlflowClient(tracking_uri=address).search_runs(["1"])
    shown = sorted(run.data.tags.get("optuna.state", "parent") for run in runs)
    assert shown == ["complete", "complete", "lost", "parent"]


def start_machine(lab, words, **environment):
    """Start a study's command in a folder of its own; return its process and what it says."""
    every = {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", **environment}
    with (lab / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "jawloc", *tune_words(lab), *words],
            cwd=lab,
            env=os.environ | every,
            stdout=said,
            stderr=said,
        )
    return process, lab / "said"


def ends_with(machine, exit_code):
    """Wait for a machine's end and return what it said."""
    process, said = machine
    try:
        assert process.wait(timeout=SECONDS) == exit_code, said.read_text()
    finally:
        process.kill()
    return said.read_text()


def study_in(storage, name="space"):
    if "://" in storage:
        url = storage.replace("postgresql://", "postgresql+psycopg://")
        # a pool would hold its connection until the garbage is collected, and who asks five times
        # a second would soon have all hundred of the server's
        where = RDBStorage(url, engine_kwargs={"poolclass": NullPool})
    else:
        where = JournalStorage(JournalFileBackend(storage))
    return optuna.load_study(study_name=name, storage=where)


def wait_for_a_trial(storage, machine, name="space"):
    """Wait until this machine is in the middle of a trial."""
    process, said = machine
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, said.read_text()
        try:
            trials = study_in(storage, name).trials
        except Exception:  # the tables, or the study, are not there yet
            trials = []
        for trial in trials:
            mine = f"-{process.pid}-" in trial.user_attrs.get("worker", "")
            if mine and trial.state.name == "RUNNING" and "mlflow_run_id" in trial.user_attrs:
                return
        time.sleep(0.2)
    raise AssertionError(said.read_text())
