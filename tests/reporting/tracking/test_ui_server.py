"""The server's process: when it counts as up, and that it is gone afterwards."""

import socket
import subprocess
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from jawloc.errors import InputError
from jawloc.reporting.tracking import store, ui_server
from jawloc.reporting.tracking.store import tracking_uri
from jawloc.reporting.tracking.ui_server import open_ui

ANSWERING = """
import http.server, pathlib, sys
pathlib.Path("asked for").write_text(" ".join(sys.argv[1:]))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *arguments):
        pass
port = int(sys.argv[sys.argv.index("--port") + 1])
host = sys.argv[sys.argv.index("--host") + 1]
http.server.HTTPServer((host, port), Answer).serve_forever()
"""


@pytest.fixture
def root(copy_store, tmp_path):
    """A project folder whose store is set up."""
    copy_store(tmp_path / "lab")
    return tmp_path / "lab"


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def stand_in(monkeypatch, tmp_path: Path, code: str):
    """Let a few lines of Python stand in for MLflow's server."""
    package = tmp_path / "mlflow"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_says_where_the_pages_are_once_they_answer_and_ends_the_server(monkeypatch, tmp_path, root):
    stand_in(monkeypatch, tmp_path, ANSWERING)
    port, said = free_port(), []

    def say(text):
        said.append(text)
        if "http" in text:
            assert answers(port)
            raise KeyboardInterrupt  # the user's Ctrl-C

    open_ui(root, port, say=say)
    known = MlflowClient(tracking_uri(root)).get_experiment_by_name("jaw_location")
    assert f"http://127.0.0.1:{port}/#/experiments/{known.experiment_id}" in said[-1]
    assert not answers(port)
    asked = (root / "asked for").read_text(
        encoding="utf-8"
    )  # it runs in the project folder, on its own store
    artifacts = (root / "mlruns" / "artifacts").as_uri()
    stores = f"--backend-store-uri {tracking_uri(root)} --default-artifact-root {artifacts}"
    assert asked.startswith(f"server {stores} ")


def test_the_folders_own_files_are_not_run_and_secrets_stay_out_of_the_command(
    monkeypatch, tmp_path, root
):
    """Regression: a mlflow.py in the project's folder was run; ps showed a database's password."""

    class Known:
        def __init__(self, tracking_uri):
            assert tracking_uri == "postgresql://me:s3cret@lab/runs"

        def get_experiment_by_name(self, name):
            return mlflow.entities.Experiment("42", name, "", "active")

    monkeypatch.setattr(ui_server, "prepare_store", lambda *_: "postgresql://me:s3cret@lab/runs")
    monkeypatch.setattr(ui_server, "MlflowClient", Known)
    (root / "mlflow.py").write_text("open('run', 'w')\nraise SystemExit(1)")
    stand_in(monkeypatch, tmp_path, ANSWERING)

    def say(text):
        if "http" in text:
            raise KeyboardInterrupt

    open_ui(root, free_port(), say=say)
    assert not (root / "run").exists()
    asked = (root / "asked for").read_text(encoding="utf-8")
    assert "s3cret" not in asked
    assert "backend-store-uri" not in asked


@pytest.mark.parametrize("arguments", [[], ["--host", "0.0.0.0"]], ids=["own", "all"])
def test_other_machines_reach_the_pages_only_if_asked_to(
    monkeypatch, tmp_path, root, jawloc, arguments
):
    stand_in(monkeypatch, tmp_path, ANSWERING)
    monkeypatch.chdir(root)
    asked = subprocess.Popen.wait

    def interrupted(server, timeout=None):
        monkeypatch.setattr(subprocess.Popen, "wait", asked)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    port = free_port()
    said = jawloc("ui", "--port", port, *arguments)
    assert said.exit_code == 0, said.output
    host = arguments[-1] if arguments else "127.0.0.1"
    assert f" --host {host} --port {port} " in (root / "asked for").read_text(encoding="utf-8")
    assert f"the runs are at http://127.0.0.1:{port}/" in said.output
    assert ("no passwords" in said.output) == bool(arguments)


def test_a_server_that_ends_by_itself_is_an_error(monkeypatch, tmp_path, root):
    stand_in(monkeypatch, tmp_path, "raise SystemExit(1)")
    with pytest.raises(InputError, match="could not be started"):
        open_ui(root, free_port(), say=str)


def test_a_taken_port_is_refused_before_anything_starts(root):
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=f"another program uses this port, choose another; {port}"
        ):
            open_ui(root, port, say=str)


@pytest.mark.parametrize("secret", ["", "me:s3cret@"])
def test_pages_of_a_remote_store_are_only_named(root, monkeypatch, secret):
    class Remote:
        def __init__(self, tracking_uri):
            assert tracking_uri == f"http://{secret}lab:5000/"

        def get_experiment_by_name(self, name):
            return mlflow.entities.Experiment("42", name, "", "active")

        def set_experiment_tag(self, *_):
            raise mlflow.MlflowException("this user may not change experiments")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{secret}lab:5000/")
    monkeypatch.setattr(store, "MlflowClient", Remote)
    monkeypatch.setattr(ui_server, "MlflowClient", Remote)
    said = []
    open_ui(root, say=said.append)
    shown = secret and "me:***@"
    page = "experiments/42/runs?workflowType=machine_learning&viewStateShareKey=results"
    assert said == [f"the runs are at http://{shown}lab:5000/#/{page}"]
