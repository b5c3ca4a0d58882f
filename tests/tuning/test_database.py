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
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from tests.tuning.test_tune import CHECKOUT, tune_words

SECONDS = 240  # a machine's patience


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def programs():
    """Return the folder of PostgreSQL's programs, which Debian keeps off the path."""
    found = shutil.which("initdb")
    every = [Path(found)] if found else Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return next((path.resolve().parent for path in every), None)


@pytest.fixture(scope="module")
def server():
    """Yield the URL of a PostgreSQL of the test's own, without a database's name."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (Debian's package is called postgresql)")
    pytest.importorskip("psycopg", reason="the database's driver is not installed (psycopg)")
    # it refuses to run as root, so that it needs a user and a folder that this one can reach
    user = "postgres" if os.geteuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="jawloc-postgresql-"))
    if user is not None:
        shutil.chown(home, user)
    port = free_port()

    def run(name, *words):
        command = [folder / name, *words]
        subprocess.run(command, user=user, cwd=home, check=True, stdout=subprocess.DEVNULL)

    data = str(home / "data")
    run("initdb", "-D", data, "-U", "jawloc", "-A", "trust")
    options = f"-p {port} -h 127.0.0.1 -k {home}"
    run("pg_ctl", "-D", data, "-l", str(home / "log"), "-o", options, "-w", "start")
    try:
        for name in ("study", "runs"):
            run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "jawloc", name)
        yield f"postgresql://jawloc@127.0.0.1:{port}"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def tracking(server, tmp_path_factory):
    """Yield the address of an MLflow server whose store is in the database."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    store = server.replace("postgresql://", "postgresql+psycopg://") + "/runs"
    words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--backend-store-uri", store, "--artifacts-destination", str(folder)]
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, *words, "--workers", "1"], stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 120
        while not answers(f"{address}/health"):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5):
            return True
    except OSError:
        return False


def test_three_machines_share_a_study_and_one_is_killed(server, tracking, make_lab, tmp_path):
    storage, machines = f"{server}/study", []
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": tracking,
        "PYTHONPATH": str(CHECKOUT),
        "OMP_NUM_THREADS": "1",
    }
    for number in range(3):
        lab = make_lab(tmp_path / f"machine_{number}")
        words = [*tune_words(lab), "--trials", "5", "--epochs", "30", "--storage", storage]
        with (lab / "said").open("w") as said:
            machine = subprocess.Popen(
                [sys.executable, "-m", "jawloc", *words],
                cwd=lab,
                env=environment,
                stdout=said,
                stderr=said,
            )
        machines.append((machine, lab / "said"))
    try:
        wait_for_a_trial(storage, machines[0])
        machines[0][0].kill()
        for machine, said in machines[1:]:
            assert machine.wait(timeout=SECONDS) == 0, said.read_text()
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


def study_in(storage):
    url = storage.replace("postgresql://", "postgresql+psycopg://")
    return optuna.load_study(study_name="space", storage=url)


def wait_for_a_trial(storage, machine):
    """Wait until this machine is in the middle of a trial."""
    process, said = machine
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, said.read_text()
        try:
            trials = study_in(storage).trials
        except Exception:  # the tables, or the study, are not there yet
            trials = []
        for trial in trials:
            mine = f"-{process.pid}-" in trial.user_attrs.get("worker", "")
            if mine and trial.state.name == "RUNNING" and "mlflow_run_id" in trial.user_attrs:
                return
        time.sleep(0.2)
    raise AssertionError(said.read_text())
