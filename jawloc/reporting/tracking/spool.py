"""What waits for a store that does not answer: a file in the run's folder, sent once it does.

The file (JSON lines) exists only while something waits. Its first line names the run; a call is a
line, and so is how many of them have been sent since, so that a process may be killed at any time:
at most the last call is then sent again, which changes nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowException

from jawloc.errors import DiskFullError, one_line
from jawloc.reporting.tracking.sending import Content, Sender, as_png
from jawloc.reporting.tracking.store import briefly
from jawloc.scans.atomic import full_disk_named
from jawloc.scans.manifest import record_file
from jawloc.scans.progress import Progress

# Between two tries, doubled each time, so that a dead store takes no share of the training's time.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 20.0, 300.0
LAST_TRIES_SECONDS = 90.0  # at the end of a run: longer than the minute for which a file is locked
BETWEEN_LAST_TRIES_SECONDS = 3.0
# MLflow raises the first of its stores, and lets the second of files and connections pass.
STORE_ERRORS = (MlflowException, OSError)


def _say(sentence: str) -> None:
    Progress.write(f"warning: {sentence}", file=sys.stderr)


class Spool:
    """Sends a run's calls, in their order; what the store does not take waits in a file.

    Parameters
    ----------
    path : of the file, in the run's folder
    sender : of the run; calls that the file holds for it already are sent first
    """

    def __init__(self, path: Path, sender: Sender, say: Callable[[str], object] = _say) -> None:
        self._path, self._sender, self._say = path, sender, say
        self._next_try, self._pause = 0.0, FIRST_PAUSE_SECONDS
        self.waiting = waiting_run(path) == sender.run_id

    def send(self, what: str, content: Content) -> None:
        """Send a call now, or keep it until the store answers.

        Raises DiskFullError if it can't be kept either.
        """
        if self.waiting and time.monotonic() < self._next_try:
            self._keep(what, content)
            return
        try:
            with briefly():
                self._send_kept()
                self._sender.send(what, content)
        except STORE_ERRORS as error:
            self.postpone(error)
            self._keep(what, content, error)

    def postpone(self, error: Exception) -> None:
        """Leave the store alone for a while, since it raised this; say so the first time."""
        if self._pause == FIRST_PAUSE_SECONDS:
            self._say(
                f"{self._sender.client.tracking_uri}: the store of the runs can't be used; the "
                f"training goes on, and what it logs waits in {self._path} ({_reason(error)})"
            )
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def finish(self, status: str) -> None:
        """End the run; if that is its regular end, try for a while to send all that waits."""
        regular = status == "FINISHED"
        if regular:  # else a store that does not answer keeps nobody waiting
            self._next_try = 0.0
        self.send("status", {"status": status, "time_ms": int(time.time() * 1000)})
        until = time.monotonic() + LAST_TRIES_SECONDS
        while regular and self.waiting and time.monotonic() < until:
            try:
                time.sleep(BETWEEN_LAST_TRIES_SECONDS)
                self.send_all()
            except STORE_ERRORS:
                continue
            except KeyboardInterrupt:
                break  # everything is on the disk
        if regular and self.waiting:
            self._say(
                f"{self._sender.client.tracking_uri}: the store of the runs still can't be used; "
                f"the same command with --resume sends what waits in {self._path}"
            )

    def send_all(self) -> None:
        """Send what waits; raises what the store does."""
        with briefly():
            self._send_kept()

    def _send_kept(self) -> None:
        """Send what waits, and remove its file."""
        if not self.waiting:
            return
        calls, sent = _read(self._path)
        # one that has not looked yet at what the store has: since an earlier outage, that has grown
        sender = Sender(self._sender.client, self._sender.run_id, again=True)
        for number, (what, content) in enumerate(calls[sent:], start=sent + 1):
            if "path" in content:
                content["path"] = str(self._path.parent / content["path"])
            if os.path.exists(content.get("path", self._path)):  # noqa: PTH110 - else it was removed
                sender.send(what, content)
            self._append({"sent": number})
        self._path.unlink()
        self.waiting, self._pause = False, FIRST_PAUSE_SECONDS
        self._say(f"{self._sender.client.tracking_uri}: all that waited for it has been sent")

    def _keep(self, what: str, content: Content, error: Exception | None = None) -> None:
        """Append a call to the file; raise `error` if its folder can't be written to."""
        content = dict(content)
        if "path" in content:  # relative, so that a project can be moved as a whole
            content["path"] = os.path.relpath(content["path"], self._path.parent)
        try:
            if not self.waiting:
                record_file(self._path)
                self._path.unlink(missing_ok=True)  # of an earlier run
                self._append({"run_id": self._sender.run_id})
                self.waiting = True
            self._append({"call": what, "content": content})
        except DiskFullError:
            raise
        except OSError:
            if error is not None:
                raise error from None
            raise

    def _append(self, line: dict[str, Any]) -> None:
        text = json.dumps(line, default=as_png)
        with (
            full_disk_named(self._path, len(text), self._path),
            self._path.open("a", encoding="utf-8") as file,
        ):
            # a line that was torn ends where the next begins
            file.write(f"\n{text}")


def waiting_run(path: Path) -> str | None:
    """Return the id of the run whose calls wait in a file; None where there is none."""
    try:
        with path.open(encoding="utf-8") as file:
            return str(json.loads(next(line for line in file if line.strip()))["run_id"])
    except (OSError, StopIteration, ValueError, KeyError, TypeError):
        return None


def _read(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], int]:
    """Return the calls in a file, and how many of them have been sent."""
    calls: list[tuple[str, dict[str, Any]]] = []
    sent = 0
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # torn, when its process was killed
            continue
        if "call" in line:
            calls.append((line["call"], line["content"]))
        sent = line.get("sent", sent)
    return calls, sent


def _reason(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return first or one_line(error)
