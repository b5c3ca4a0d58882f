"""A tracking server that goes away, and processes that are killed while they send what waited."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import tiny_project as tiny
from campaign import Outcome
from store_bench import RESULTS, TRAIN, UNSENT, Bench, moments_of_training, sentence, waits
from tiny_project import judged


class Server:
    """An MLflow server, in a process of its own that can be killed and started again."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        shutil.copytree(store, folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: int | None = None

    def start(self) -> None:
        self.process = tiny.in_child(self._serve)
        tiny.wait_until(self._answers)

    def kill(self) -> None:
        if self.process is not None:
            os.kill(self.process, signal.SIGKILL)
            tiny.end_of(self.process)
            self.process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                return True
        except OSError:
            return False

    def _serve(self) -> None:
        os.environ |= {
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{self.folder / 'mlflow.db'}",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(self.folder / "artifacts"),
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        }
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        from mlflow.server import app
        from werkzeug.serving import make_server

        make_server("127.0.0.1", self.port, app, threaded=True).serve_forever()


@contextlib.contextmanager
def _silent(port: int) -> Iterator[None]:
    """Take connections on a port, and never answer."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen(100)
        yield


def dead_server(bench: Bench) -> Iterator[Outcome]:
    """The server goes away in mid-run: for good, for a while, or it hangs."""
    moments = [m for m in moments_of_training() if m != "before the summary is written"]
    cases = [(way, moment) for way in ("for good", "for a while", "hangs") for moment in moments]
    for number, (way, moment) in enumerate(cases):
        base = bench.project(store=False)
        server = Server(bench.work / f"server{number}", bench.store)
        server.start()
        address = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
        try:
            with mock.patch.dict(os.environ, address):
                wrong = _without_server(base, server, way, moment)
        finally:
            server.kill()
        yield judged(f"the server is gone {way}" if way != "hangs" else "it hangs", moment, wrong)


def _without_server(base: Path, server: Server, way: str, moment: str) -> list[str]:
    with contextlib.ExitStack() as stack:

        def go_away() -> None:
            server.kill()
            if way == "hangs":
                stack.enter_context(_silent(server.port))

        stack.enter_context(tiny.at_call(*moments_of_training()[moment], go_away))
        if way == "for a while":
            from jawloc.reporting.tracking.spool import Spool

            stack.enter_context(tiny.at_call(Spool, "finish", 1, server.start))
        said = tiny.run(base, *TRAIN)
    if way == "for a while":
        wrong = [] if said.code == 0 else [f"exit code {said.code}: {said.error[-500:]!r}"]
        wrong += ["still waiting"] if (base / RESULTS / UNSENT).exists() else []
        return wrong + _on_server(base, server)
    wrong = waits(base, said)
    refused = tiny.run(base, *TRAIN, "--resume")  # while it is still away
    wrong += sentence(refused, server.address)
    server.start()
    said = tiny.run(base, *TRAIN, "--resume")
    wrong += [] if said.code == 0 else [f"not sent: {said.error[-300:]!r}"]
    return wrong + _on_server(base, server)


def _on_server(base: Path, server: Server) -> list[str]:
    folder = server.folder
    return tiny.wrong_in_store(folder / "mlflow.db", folder / "artifacts", base / RESULTS)


def killed_while_sending(bench: Bench) -> Iterator[Outcome]:
    """A process is killed while it sends what waits; the next one sends the rest, once."""
    from jawloc.workflows import train_result

    base = bench.project(store=False)
    server = Server(bench.work / "server", bench.store)
    server.start()
    with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": server.address}):
        with tiny.at_call(*moments_of_training()["before the second epoch is logged"], server.kill):
            said = tiny.run(base, *TRAIN)
        yield judged("the server is gone for good", "before the second epoch", waits(base, said))
        server.start()
        kept, stored = base / RESULTS / UNSENT, bench.work / "stored"
        waiting = kept.read_bytes() if kept.exists() else b""
        server.kill()
        shutil.copytree(server.folder, stored)
        for _ in range(1 if bench.plan.short else 25):
            shutil.rmtree(server.folder)
            shutil.copytree(stored, server.folder)
            kept.write_bytes(waiting)
            server.start()
            process = tiny.in_child(partial(train_result.send_rest, base, base / RESULTS))
            patience = bench.random.uniform(0.02, 0.6)
            time.sleep(patience)
            os.kill(process, signal.SIGKILL)
            tiny.end_of(process)
            lines = len(kept.read_bytes().splitlines()) if kept.exists() else 0
            wrong = []
            if lines:
                said = tiny.run(base, *TRAIN, "--resume")
                wrong += [] if said.code == 0 else [f"not sent: {said.error[-300:]!r}"]
            wrong += _on_server(base, server)
            server.kill()
            detail = f"after {patience:.2f} s, at line {lines} of the file"
            yield judged("killed while it sends what waits", detail, wrong)
