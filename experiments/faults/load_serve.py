"""A served model that many clients ask at once: each answer must be that of its own question."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import dist
from pathlib import Path

from campaign import Outcome
from load_locate import Figures, Known
from load_project import MODEL, Project
from load_samples import Sample, watched

LONGEST_START, LONGEST_ANSWER = 300, 240  # seconds
MOST_SCANS = 3  # of one question
BAD_SHARE = 0.15  # of the questions, those that name a scan which can't be read
SAME = 1e-6  # voxels
Question = tuple[list[Path], Path | None]  # scans that are good, one that is not


def serving(
    project: Project, known: Known, clients: int, requests: int, seed: int, figures: Figures
) -> Generator[Outcome, None, list[Sample]]:
    """Serve the model that locate used, and ask it from many threads at once."""
    summary = json.loads((known.model.parent / "summary.json").read_text(encoding="utf-8"))
    assert known.model.stem == f"{MODEL}_0"
    folder, answered = known.scans.good[0].parents[1], list[Outcome]()

    def client(number: int) -> None:
        draw = random.Random(f"{seed} {number}")
        for count in range(requests):
            detail = f"client {number}, question {count}"
            answered.append(_asked(address, folder, known, _question(known, draw), detail))

    with (
        _server(project, summary["run_id"], folder) as (address, group),
        watched(group, lambda: len(answered)) as samples,
        project.timed(figures, f"{clients} clients, {requests} questions each, seconds"),
        ThreadPoolExecutor(clients) as pool,
    ):
        list(pool.map(client, range(clients)))
    yield from answered
    right = sum(not outcome.lost for outcome in answered)
    figures += [("clients", clients), ("questions", len(answered)), ("answered right", right)]
    return samples


def _question(known: Known, draw: random.Random) -> Question:
    utf_8 = [path for path in known.scans.good if path.name.isprintable()]
    good = draw.sample(utf_8, draw.randint(1, MOST_SCANS))
    return good, draw.choice(list(known.scans.bad)) if draw.random() < BAD_SHARE else None


def _asked(address: str, folder: Path, known: Known, question: Question, detail: str) -> Outcome:
    good, bad = question
    names = [path.relative_to(folder).as_posix() for path in good]
    bad_names = [] if bad is None else [bad.relative_to(folder).as_posix()]
    try:
        status, answer = _ask(address, {"inputs": [*names, *bad_names]})
    except OSError as error:
        return Outcome("a question to a served model", "LOST", f"{detail}: {error}")
    if bad is not None:
        fault = "a question with a corrupt scan to a served model"
        right = status == 400 and bad.name in answer["message"] and "predictions" not in answer
        return Outcome(fault, "refused" if right else "LOST", f"{detail}: {status}, {answer}")
    rows = answer.get("predictions", [])
    right = status == 200 and [row["scan"] for row in rows] == names
    points = [tuple(row[f"{axis}_voxels"] for axis in "zyx") for row in rows]
    right = right and all(
        dist(point, known.points[path]) < SAME for path, point in zip(good, points, strict=True)
    )
    what = "survived" if right else "LOST"
    return Outcome("a question to a served model", what, f"{detail}: {status}, {answer}")


@contextmanager
def _server(project: Project, run_id: str, folder: Path) -> Iterator[tuple[str, int]]:
    """Give the address and the process group of a server of a run's model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["models", "serve", "--env-manager", "local", "-m", f"runs:/{run_id}/locator"]
    variables = {"MLFLOW_TRACKING_URI": project.store, "JAWLOC_SCAN_FOLDER": str(folder)}
    command = project.start(
        *words, "-p", str(port), "-h", "127.0.0.1", module="mlflow", **variables
    )
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + LONGEST_START
        while not _answers(f"{address}/ping"):
            if command.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the server did not start")
            time.sleep(0.2)
        yield address, command.process.pid
    finally:
        _end(command.process.pid)
        command.process.wait()


def _end(group: int) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(group, kind)
        except ProcessLookupError:
            return
        time.sleep(0.5)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _ask(address: str, content: object) -> tuple[int, dict]:
    request = urllib.request.Request(
        f"{address}/invocations",
        data=json.dumps(content).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=LONGEST_ANSWER) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)
