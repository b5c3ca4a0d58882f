"""A logged locator behind MLflow's own server, asked over HTTP."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from jawloc.inference.locator import load_locator
from jawloc.reporting.tracking.runs import tracked_run
from jawloc.reporting.tracking.store import tracking_uri
from tests.lab import SCAN_IDS, write_model

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
LONGEST_START = 300  # seconds


@pytest.fixture(scope="module")
def logged(phantom_folder, copy_store, tmp_path_factory):
    """A logged locator; a folder of scans with a link out of it, beside a scan not to be read."""
    root = tmp_path_factory.mktemp("serving")
    copy_store(root)
    scans = root / "scans"
    (scans / "sub").mkdir(parents=True)
    for number, place in enumerate(["scans/a.dcm", "scans/sub/b.dcm", "secret.dcm"]):
        shutil.copy(phantom_folder / f"{SCAN_IDS[number]}.dcm", root / place)
    (scans / "link.dcm").symlink_to(root / "secret.dcm")
    weights = write_model(root / "locator.pth", ("jaw", "otolith"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with tracked_run(root, "served", params={}) as run:
            model = run.log_locator(weights)
        store = tracking_uri(root)
    return SimpleNamespace(root=root, scans=scans, model=model, weights=weights, store=store)


@contextmanager
def served(logged, **variables):
    """Give the address of a server of the model, until the block is done."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["models", "serve", "--env-manager", "local", "-m", logged.model]
    kept = {k: v for k, v in os.environ.items() if k != "JAWLOC_SCAN_FOLDER"}
    log = logged.root / f"server_{port}.log"
    with log.open("w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words, "-p", str(port), "-h", "127.0.0.1"],
            cwd=logged.root,
            env={**kept, "MLFLOW_TRACKING_URI": logged.store, **variables},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + LONGEST_START
        while not answers(f"{address}/ping"):
            running = server.poll() is None and time.monotonic() < deadline
            assert running, f"the server did not start:\n{log.read_text(encoding='utf-8')[-3000:]}"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=10)
        finally:
            kill(server.pid)


def kill(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return  # all of them have ended


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def ask(address, content):
    """Post JSON to the server; return the status and the answer."""
    request = urllib.request.Request(
        f"{address}/invocations",
        data=json.dumps(content).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=240) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


@pytest.fixture(scope="module")
def address(logged):
    with served(logged, JAWLOC_SCAN_FOLDER=str(logged.scans)) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dataframe_split", "dataframe_records", "inputs", "instances"])
def test_scan_paths_go_in_and_positions_come_out(address, logged, form):
    """Relative to the allowed folder, or absolute and in it."""
    paths = ["a.dcm", str(logged.scans / "sub" / "b.dcm")]
    content = {
        "dataframe_split": {"columns": ["scan"], "data": [[path] for path in paths]},
        "dataframe_records": [{"scan": path} for path in paths],
    }.get(form, paths)
    status, answer = ask(address, {form: content})
    assert status == 200, answer
    rows = answer["predictions"]
    named = [(row["scan"], row["object"]) for row in rows]
    assert named == [(path, name) for path in paths for name in ("jaw", "otolith")]
    locator = load_locator(logged.weights)
    expected = [found for path in paths for found in locator.locate(logged.scans / path)]
    for row, found in zip(rows, expected, strict=True):
        point = [row[f"{axis}_voxels"] for axis in "zyx"]
        assert point == pytest.approx(found.point_voxels, abs=1e-3)
        mm = [row[f"{axis}_mm"] for axis in "zyx"]
        assert mm == pytest.approx(found.point_mm, abs=1e-3)
        assert row["spread_voxels"] == pytest.approx(found.spread_voxels, abs=1e-3)
        assert row["status"] == "uncertain"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["{root}/secret.dcm", "../secret.dcm", "sub/../../secret.dcm", "link.dcm", "/etc/hosts"]
)
def test_what_is_outside_the_folder_is_refused_with_the_reason(address, logged, path):
    given = path.format(root=logged.root)
    for content in (
        {"inputs": [given]},
        {"dataframe_split": {"columns": ["scan"], "data": [["a.dcm"], [given]]}},
    ):
        status, answer = ask(address, content)
        assert status == 400
        assert (
            f"{given}: scans are read only inside the folder that JAWLOC_SCAN_FOLDER names"
            in answer["message"]
        )
        assert "predictions" not in answer


@pytest.mark.slow
def test_a_scan_that_is_not_there_is_refused_and_the_server_goes_on(address):
    status, answer = ask(address, {"inputs": ["none.dcm"]})
    assert status == 400
    assert "none.dcm: a scan must be a file or folder" in answer["message"]
    assert ask(address, {"inputs": ["a.dcm"]})[0] == 200


@pytest.mark.slow
def test_without_an_allowed_folder_a_server_reads_nothing(logged):
    with served(logged) as address:
        for path in ("a.dcm", str(logged.scans / "a.dcm"), "/etc/hosts"):
            status, answer = ask(address, {"inputs": [path]})
            assert status == 400
            assert (
                "environment variable JAWLOC_SCAN_FOLDER names; it is not set" in answer["message"]
            )
