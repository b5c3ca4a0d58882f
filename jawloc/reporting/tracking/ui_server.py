"""The process that serves MLflow's pages."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mlflow import MlflowClient

from jawloc.errors import InputError, without_secrets
from jawloc.reporting.tracking.store import EXPERIMENT, prepare_store, store_database
from jawloc.reporting.tracking.views import RESULTS, view_page

HOST = "127.0.0.1"
_LOOPBACK = {"0.0.0.0": HOST, "::": "::1"}
STARTING_SECONDS, ENDING_SECONDS = 120, 10


def open_ui(
    root: Path,
    port: int = 5000,
    experiment: str = EXPERIMENT,
    say: Callable[[str], None] = print,
    host: str = HOST,
) -> None:
    """Serve MLflow's pages until Ctrl-C, for this machine only, or name those of a remote store.

    With another address of this machine as `host`, or 0.0.0.0 for all, other machines reach them.
    `say` is called with their address once they can be opened. Raises InputError if the port is
    taken or the server doesn't start.
    """
    uri = prepare_store(root, experiment)
    known = MlflowClient(tracking_uri=uri).get_experiment_by_name(experiment)
    page = view_page(known.experiment_id, RESULTS)
    if uri.startswith("http"):
        say(without_secrets(f"the runs are at {uri.rstrip('/')}/{page}"))
        return
    own = _LOOPBACK.get(host, host)
    if _is_taken(own, port):
        raise InputError(f"--port: another program uses this port, choose another; {port}")
    if host != own or not (own in ("localhost", "::1") or own.startswith("127.")):
        say("the pages have no passwords: whoever reaches this machine can change and delete runs")
    say("starting, this takes some seconds ...")
    server = _started(uri, root, host, port)
    try:
        address = f"http://{f'[{own}]' if ':' in own else own}:{port}"
        _wait_until_up(server, address)
        say(f"the runs are at {address}/{page} (Ctrl-C ends this)")
        server.wait()
    except KeyboardInterrupt:
        pass  # the way to end it
    finally:
        _end(server)


def _started(uri: str, root: Path, host: str, port: int) -> subprocess.Popen:
    artifacts = store_database(root).with_name("artifacts").as_uri()
    # -P: a file of the project's folder that is called like a package is not run; the same goes for
    # the server's own processes
    command = [sys.executable, "-P", "-m", "mlflow", "server"]
    # without the job execution, seven idle processes fewer
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    environment |= {"PYTHONSAFEPATH": "1"}
    if without_secrets(uri) == uri:
        command += ["--backend-store-uri", uri]
    else:  # other users of the machine see a command, but not its environment
        environment |= {"MLFLOW_BACKEND_STORE_URI": uri}
    command += ["--default-artifact-root", artifacts, "--host", host, "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    return subprocess.Popen(command, cwd=root, env={**os.environ, **environment})


def _is_taken(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=2):
        return True
    return False


def _wait_until_up(server: subprocess.Popen, address: str) -> None:
    give_up = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < give_up:
        if server.poll() is not None:
            raise InputError(f"--port: MLflow's server could not be started there; {address}")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise InputError(f"--port: no answer of MLflow's server in {STARTING_SECONDS} s; {address}")


def _end(server: subprocess.Popen) -> None:
    server.terminate()  # Ctrl-C in a terminal has reached the server already
    try:
        server.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
