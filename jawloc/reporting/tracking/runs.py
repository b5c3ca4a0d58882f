"""Runs, metrics and pictures in MLflow.

Everything goes through a client that knows its own store, never through MLflow's global active
run or tracking URI, so that several runs, and several stores, can be open at once.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient, MlflowException

from jawloc.errors import InputError, without_secrets
from jawloc.reporting.tracking.dead_runs import end_dead_runs
from jawloc.reporting.tracking.metric_names import grouped
from jawloc.reporting.tracking.processes import process_tags
from jawloc.reporting.tracking.sending import MODEL_NAME, Sender, send_locator
from jawloc.reporting.tracking.source import source_tags
from jawloc.reporting.tracking.spool import STORE_ERRORS, Spool, waiting_run
from jawloc.reporting.tracking.store import (
    EXPERIMENT,
    briefly,
    connected,
    prepare_store,
    without_retries,
)
from jawloc.scans.progress import Progress
from jawloc.training.interruption import interruptions_held

if TYPE_CHECKING:
    import numpy as np

    from jawloc.training.records import EpochRecord


@contextmanager
def tracked_run(
    root: Path,
    run_name: str,
    *,
    params: Mapping[str, object],
    tags: Mapping[str, str] = MappingProxyType({}),
    experiment: str = EXPERIMENT,
    parent_run_id: str | None = None,
    run_id: str | None = None,
    unsent: Path | None = None,
) -> Iterator[TrackedRun]:
    """Open a run, and end it FINISHED, FAILED (an exception) or KILLED (an interruption).

    `run_id` is an earlier run to resume, whose changed params go into tags `resumed.<key>`.
    `unsent` is the path of a file: with it, a run that has begun goes on if the store fails, and
    what the store doesn't take waits there (see `spool.py`). Raises InputError if the earlier run
    is not in the store, and what `connected` does. Runs that killed processes of this machine left
    RUNNING are ended first, unless this one is nested.
    """
    parent = {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}
    every_tag = {**source_tags(), **tags, **parent, **process_tags()}
    with connected(root, experiment, offline=None not in (run_id, unsent)) as client:
        run, status = None, "FAILED"
        if parent_run_id is None:
            end_dead_runs(client, experiment)
        try:
            if run_id is None:
                with interruptions_held():  # until it is known which run to end
                    run = _begin(client, experiment, run_name, every_tag)
            else:
                run = TrackedRun(client, run_id, again=True).keeping(unsent)
                if not _reopen(run):
                    run = None
                    raise InputError(
                        f"run {run_id}: a run can only be resumed in the tracking store that it "
                        f"began in; {client.tracking_uri} does not have it"
                    )
            run.tag(every_tag)  # a resumed run's too
            run.log_params(params)
            run = run.keeping(unsent)
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            if run is not None:
                _end(run, status)


def _begin(client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str]) -> TrackedRun:
    known = client.get_experiment_by_name(experiment).experiment_id
    return TrackedRun(client, str(client.create_run(known, tags=tags, run_name=name).info.run_id))


def _reopen(run: TrackedRun) -> bool:
    """Send what waits of an earlier run, and reopen it; return False if the store has no such."""
    try:
        with nullcontext() if run.spool is None else briefly():
            _restore(run.client, run.run_id)
        if run.spool is not None:
            run.spool.send_all()
        with nullcontext() if run.spool is None else briefly():
            # whose it is comes first: no other command may take it for a dead process's in between
            Sender(run.client, run.run_id).send("tags", {"values": process_tags()})
            run.client.update_run(run.run_id, status="RUNNING")
    except STORE_ERRORS as error:
        if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
            return False
        if run.spool is None:
            raise
        run.spool.postpone(error)
    return True


def _restore(client: MlflowClient, run_id: str) -> None:
    """Bring back a run that somebody deleted in MLflow's pages, and say so: it takes nothing."""
    if client.get_run(run_id).info.lifecycle_stage == "deleted":
        client.restore_run(run_id)
        Progress.write(f"note: run {run_id} was deleted in MLflow; it is back", file=sys.stderr)


def _end(run: TrackedRun, status: str) -> None:
    if status == "FINISHED":
        if run.spool is not None:
            run.spool.finish(status)
        else:
            run.client.set_terminated(run.run_id, status)
        return
    # what ended the run counts more than a store that can't be reached
    with suppress(*STORE_ERRORS), without_retries():
        if run.spool is not None:
            run.spool.finish(status)
        else:
            run.client.set_terminated(run.run_id, status)


def send_unsent(root: Path, unsent: Path) -> None:
    """Send what waits in a file of a run that is over; raise what `connected` does.

    Here and where a run is resumed, one that was deleted in MLflow is brought back.
    """
    run_id = waiting_run(unsent)
    if run_id is None:
        return
    with connected(root) as client:
        _restore(client, run_id)
        Spool(unsent, Sender(client, run_id)).send_all()


def end_lost_run(root: Path, run_id: str, tags: Mapping[str, str], *, unfinished: str) -> None:
    """Tag a run whose process is gone, and end it as KILLED if it is still RUNNING.

    A run in which one of the tags is no longer `unfinished` said itself how it ended.
    """
    client = MlflowClient(prepare_store(root))
    try:
        run = client.get_run(run_id)
        status = run.info.status
        said = {run.data.tags.get(key, unfinished) for key in tags}
        if status not in ("RUNNING", "KILLED") or said != {unfinished}:
            return
    except MlflowException:  # another store's
        return
    TrackedRun(client, run_id).tag(tags)
    if status == "RUNNING":
        client.set_terminated(run_id, "KILLED")


@dataclass(frozen=True)
class TrackedRun:
    """A run in the store; what a method logs is there when it returns, or waits in its spool.

    `again`: what it logs may be in the store already, since a killed process logged it.
    """

    client: MlflowClient
    run_id: str
    spool: Spool | None = None
    again: bool = False

    def keeping(self, unsent: Path | None) -> TrackedRun:
        """Return this run with a file where what the store does not take waits; None: with none."""
        if unsent is None or self.spool is not None:
            return self
        return replace(self, spool=Spool(unsent, self._sender()))

    def _sender(self) -> Sender:
        return Sender(self.client, self.run_id, self.again)

    def _send(self, what: str, **content: object) -> None:
        (self.spool or self._sender()).send(what, content)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log params as text, without secrets, very long ones shortened; known ones stay."""
        texts = {key: without_secrets(str(value)) for key, value in params.items()}
        self._send("params", values=texts)

    def log_epoch(self, record: EpochRecord) -> None:
        """Log an epoch's numbers by their sections (`train/kl`), with the epoch as the step."""
        numbers = record.flat()
        step = int(numbers.pop("epoch"))
        self._log_metrics(grouped(numbers), step)

    def log_summary(
        self, numbers: Mapping[str, float | None], step: int = 0, *, replaced: str | None = None
    ) -> None:
        """Log a run's final numbers, but for those that are None (no spacing, no mm).

        `replaced` begins the names of earlier numbers that these replace as a whole: what these
        lack of them becomes NaN, since a store can't remove a metric.
        """
        new = {key: value for key, value in numbers.items() if value is not None}
        if replaced is not None:
            known = self.client.get_run(self.run_id).data.metrics
            old = {k for k, v in known.items() if k.startswith(replaced) and not math.isnan(v)}
            new |= dict.fromkeys(old - new.keys(), math.nan)
        self._log_metrics(new, step)

    def number(self, key: str) -> float | None:
        """Return the last value of a metric; None if the store has none, or does not answer."""
        with suppress(*STORE_ERRORS), briefly():
            return self.client.get_run(self.run_id).data.metrics.get(key)
        return None

    def _log_metrics(self, numbers: Mapping[str, float], step: int) -> None:
        values = {key: float(value) for key, value in numbers.items()}
        self._send("metrics", values=values, step=step, time_ms=int(time.time() * 1000))

    def log_heatmap(self, picture: np.ndarray, key: str, step: int) -> None:
        """Log a picture to the UI's image grid: in the row `key` (`heatmap/val`), column `step`.

        picture : array of uint8, shape (rows, columns, 3)
        """
        self._send("picture", picture=picture, key=key, step=step)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags, without secrets, very long texts shortened."""
        self._send("tags", values={key: without_secrets(text) for key, text in tags.items()})

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into a folder of the run's artifacts (the top one by default)."""
        self._send("file", path=str(path), folder=folder)

    def log_dict(self, content: Mapping[str, Any], name: str) -> None:
        """Write a mapping as an artifact, in JSON or YAML by the ending of its name."""
        self._send("dict", content=dict(content), name=name)

    def log_dataset(
        self, splits: Mapping[str, Sequence[str]], cache_keys: Mapping[str, str]
    ) -> None:
        """Log the scans of each split, and the keys of their cached examples, in `dataset.json`.

        Each split becomes an MLflow dataset, whose digest changes with any scan or cache setting.
        """
        content = {name: {i: cache_keys[i] for i in ids} for name, ids in splits.items()}
        self._send("dataset", content=content)

    def log_locator(self, weights: Path) -> str:
        """Log a locator's `.pth` as an MLflow model that takes scan paths, and return its URI.

        Nothing is pickled. It has the run's params, and its summary if that is logged first.
        """
        if self.spool is None:
            return send_locator(self._sender(), weights)
        self._send("locator", path=str(weights))
        return f"runs:/{self.run_id}/{MODEL_NAME}"
