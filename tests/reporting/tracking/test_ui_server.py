"""The server's process: when it counts as up, and that it is gone afterwards."""

import socket
from contextlib import closing
from pathlib import Path

import pytest

from jawloc.errors import InputError
from jawloc.reporting.tracking.ui_server import serve

ANSWERING = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *arguments):
        pass
port = int(sys.argv[sys.argv.index("--port") + 1])
assert sys.argv[sys.argv.index("--host") + 1] == "127.0.0.1"
http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
"""


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


def test_says_where_the_pages_are_once_they_answer_and_ends_the_server(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, ANSWERING)
    port, said = free_port(), []

    def say(text):
        said.append(text)
        if "http" in text:
            assert answers(port)
            raise KeyboardInterrupt  # the user's Ctrl-C

    serve("sqlite:///x", "file:///a", tmp_path, port, "#/experiments/1", say)
    assert f"http://127.0.0.1:{port}/#/experiments/1" in said[-1]
    assert not answers(port)


def test_a_server_that_ends_by_itself_is_an_error(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, "raise SystemExit(1)")
    with pytest.raises(InputError, match="could not be started"):
        serve("sqlite:///x", "file:///a", tmp_path, free_port(), "", str)


def test_a_taken_port_is_refused_before_anything_starts(tmp_path):
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=f"another program uses this port, choose another; {port}"
        ):
            serve("sqlite:///x", "file:///a", tmp_path, port, "", str)
