"""Runs, metrics and pictures in MLflow.

Everything goes through a client that knows its own store, never through MLflow's global active
run or tracking URI, so that several runs, and several stores, can be open at once.
"""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient, MlflowException, entities

from jawloc.errors import InputError, without_secrets
from jawloc.reporting.tracking import model_logging
from jawloc.reporting.tracking.source import source_tags
from jawloc.reporting.tracking.store import EXPERIMENT, connected, prepare_store, without_retries

if TYPE_CHECKING:
    from jawloc.reporting.figures import Figure
    from jawloc.training.records import EpochRecord

LONGEST_VALUE = 5000  # characters of a param or tag; MLflow takes 6000
PARAMS_A_BATCH = 100  # MLflow's limit


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
) -> Iterator[TrackedRun]:
    """Open a run, and end it FINISHED, FAILED (an exception) or KILLED (an interruption).

    `run_id` is an earlier run to resume, whose changed params go into tags `resumed.<key>`. Raises
    InputError if it is not in the store, and what `connected` does.
    """
    parent = {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}
    every_tag = {**source_tags(), **tags, **parent}
    with connected(root, experiment) as client:
        opened, status = None, "FAILED"
        try:
            with _interruptions_held():  # until it is known which run to end
                opened = _open(client, experiment, run_name, every_tag, run_id)
            run = TrackedRun(client, opened)
            run.tag(every_tag)  # a resumed run's too
            run.log_params(params)
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            if opened is not None:
                _end(client, opened, status)


@contextmanager
def _interruptions_held() -> Iterator[None]:
    """Hold back SIGINT, SIGTERM and SIGHUP until the block is done, then deliver the first.

    Only signals that a Python function handles, and only in the main thread: no other gets any.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    numbers = [n for n in signal.Signals if n.name in ("SIGINT", "SIGTERM", "SIGHUP")]
    handlers = {n: handler for n in numbers if callable(handler := signal.getsignal(n))}
    try:
        for number in handlers:
            signal.signal(number, lambda n, _: arrived.append(n))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for first in arrived[:1]:
        signal.raise_signal(first)


def _open(
    client: MlflowClient, experiment: str, name: str, tags: Mapping[str, str], run_id: str | None
) -> str:
    """Create a run, or reopen the one of this id; return its id."""
    if run_id is None:
        known = client.get_experiment_by_name(experiment).experiment_id
        return str(client.create_run(known, tags=tags, run_name=name).info.run_id)
    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(
            f"run {run_id}: a run can only be resumed in the tracking store that it began in; "
            f"{client.tracking_uri} does not have it"
        ) from None
    return run_id


def _end(client: MlflowClient, run_id: str, status: str) -> None:
    if status == "FINISHED":
        client.set_terminated(run_id, status)
        return
    # what ended the run counts more than a store that can't be reached
    with suppress(MlflowException), without_retries():
        client.set_terminated(run_id, status)


def end_lost_run(root: Path, run_id: str, tags: Mapping[str, str]) -> None:
    """End a run whose process is gone as FAILED, if the store still has it as running."""
    client = MlflowClient(prepare_store(root))
    try:
        if client.get_run(run_id).info.status != "RUNNING":
            return
    except MlflowException:  # another store's
        return
    TrackedRun(client, run_id).tag(tags)
    client.set_terminated(run_id, "FAILED")


def _shortened(text: str) -> str:
    text = without_secrets(text)
    short = f"{text[:LONGEST_VALUE]}... ({len(text)} characters)"
    return text if len(text) <= LONGEST_VALUE else short


@dataclass(frozen=True)
class TrackedRun:
    """A run in the store; what a method logs is there when it returns."""

    client: MlflowClient
    run_id: str

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log params as text, without secrets, very long ones shortened; known ones stay."""
        known = self.client.get_run(self.run_id).data.params
        texts = {key: _shortened(str(value)) for key, value in params.items()}
        new = [entities.Param(key, text) for key, text in texts.items() if key not in known]
        for start in range(0, len(new), PARAMS_A_BATCH):
            self.client.log_batch(self.run_id, params=new[start : start + PARAMS_A_BATCH])
        changed = {key: text for key, text in texts.items() if known.get(key, text) != text}
        self.tag({f"resumed.{key}": text for key, text in changed.items()})

    def log_epoch(self, record: EpochRecord) -> None:
        """Log an epoch's numbers under their flat names, with the epoch as the step."""
        numbers = record.flat()
        self._log_metrics(numbers, step=int(numbers.pop("epoch")))

    def log_summary(self, numbers: Mapping[str, float | None]) -> None:
        """Log a run's final numbers, but for those that are None (no spacing, no mm)."""
        self._log_metrics({k: v for k, v in numbers.items() if v is not None}, step=0)

    def _log_metrics(self, numbers: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [entities.Metric(key, float(value), now, step) for key, value in numbers.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def log_heatmap(self, figure: Figure, key: str, step: int) -> None:
        """Log a figure to the UI's image grid: in the row `key` (`heatmap/val`), column `step`."""
        from jawloc.reporting.figures.style import figure_to_array

        self.client.log_image(self.run_id, figure_to_array(figure), key=key, step=step)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags, without secrets, very long texts shortened."""
        # in a batch, which the store tries again where several processes set the same tag
        every = [entities.RunTag(key, _shortened(text)) for key, text in tags.items()]
        self.client.log_batch(self.run_id, tags=every)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Copy a file into a folder of the run's artifacts (the top one by default)."""
        self.client.log_artifact(self.run_id, str(path), folder)

    def log_dict(self, content: Mapping[str, Any], name: str) -> None:
        """Write a mapping as an artifact, in JSON or YAML by the ending of its name."""
        self.client.log_dict(self.run_id, dict(content), name)

    def log_dataset(
        self, splits: Mapping[str, Sequence[str]], cache_keys: Mapping[str, str]
    ) -> None:
        """Log the scans of each split, and the keys of their cached examples, in `dataset.json`.

        Each split becomes an MLflow dataset, whose digest changes with any scan or cache setting.
        """
        content = {name: {i: cache_keys[i] for i in ids} for name, ids in splits.items()}
        self.log_dict(content, "dataset.json")
        place = f"{self.client.get_run(self.run_id).info.artifact_uri}/dataset.json"
        inputs = []
        for name, keys in content.items():
            dataset = entities.Dataset(
                name=f"{name} scans",
                digest=hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:8],
                source_type="local",
                source=json.dumps({"uri": without_secrets(place)}),
                profile=json.dumps({"num_scans": len(keys)}),
            )
            context = entities.InputTag("mlflow.data.context", name)
            inputs.append(entities.DatasetInput(dataset, tags=[context]))
        self.client.log_inputs(self.run_id, datasets=inputs)

    def log_locator(self, weights: Path) -> str:
        """Log a locator's `.pth` as an MLflow model that takes scan paths, and return its URI.

        Nothing is pickled. It has the run's params, and its summary if that is logged first.
        """
        return model_logging.log_locator(self.client, self.run_id, weights)
