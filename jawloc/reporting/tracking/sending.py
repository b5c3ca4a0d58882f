"""What a run's log consists of: calls with plain contents, each with a function that sends it.

A content is anything JSON can hold, or a picture, so that a call can wait in a file and be sent
later. Sending one again changes nothing: metrics are known by name and step, files by their names.
A run's final numbers and its model are replaced where they differ, since a resumed run may have
trained more epochs.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient, entities
from PIL import Image

from jawloc.errors import without_secrets
from jawloc.inference.models import file_digest
from jawloc.reporting.tracking import images, model_logging

LONGEST_VALUE = 5000  # characters of a param or tag; MLflow takes 6000
PARAMS_A_BATCH = 100  # MLflow's limit
FINAL_STEP = 0  # of a run's final numbers

MODEL_NAME = model_logging.MODEL_NAME

Content = Mapping[str, Any]


@dataclass
class Sender:
    """Sends a run's calls to its store.

    Attributes
    ----------
    again : whether calls may have been sent before, so that each looks for what is there already
    """

    client: MlflowClient
    run_id: str
    again: bool = False
    _values: dict[str, dict[int, float]] = field(default_factory=dict)  # by metric and step

    def send(self, what: str, content: Content) -> None:
        """Send one call, one of `SENDERS`; it is in the store when this returns."""
        SENDERS[what](self, **content)

    def lacks(self, metric: str, step: int, value: float) -> bool:
        """Return whether the store has no value of a metric at this step, or another final one."""
        if metric not in self._values:
            history = self.client.get_metric_history(self.run_id, metric)
            in_order = sorted(history, key=lambda one: one.timestamp)
            self._values[metric] = {one.step: one.value for one in in_order}
        known = self._values[metric]
        if step not in known:
            return True
        return step == FINAL_STEP and not np.array_equal(known[step], value, equal_nan=True)


def _params(to: Sender, values: Mapping[str, str]) -> None:
    """Send params, very long ones shortened; those that the run has stay, changes become tags."""
    known = to.client.get_run(to.run_id).data.params
    texts = {key: shortened(value) for key, value in values.items()}
    new = [entities.Param(key, text) for key, text in texts.items() if key not in known]
    for start in range(0, len(new), PARAMS_A_BATCH):
        to.client.log_batch(to.run_id, params=new[start : start + PARAMS_A_BATCH])
    changed = {key: text for key, text in texts.items() if known.get(key, text) != text}
    _tags(to, {f"resumed.{key}": text for key, text in changed.items()})


def shortened(text: str) -> str:
    """Return a text that MLflow takes as a value, without secrets."""
    text = without_secrets(text)
    short = f"{text[:LONGEST_VALUE]}... ({len(text)} characters)"
    return text if len(text) <= LONGEST_VALUE else short


def _tags(to: Sender, values: Mapping[str, str]) -> None:
    # in a batch, which the store tries again where several processes set the same tag
    every = [entities.RunTag(key, shortened(text)) for key, text in values.items()]
    to.client.log_batch(to.run_id, tags=every)


def _metrics(to: Sender, values: Mapping[str, float], step: int, time_ms: int) -> None:
    new = [key for key in values if not to.again or to.lacks(key, step, values[key])]
    metrics = [entities.Metric(key, float(values[key]), time_ms, step) for key in new]
    to.client.log_batch(to.run_id, metrics=metrics)


def _picture(to: Sender, picture: np.ndarray | str, key: str, step: int) -> None:
    """Send a picture, or what `as_png` made of one, to the UI's image grid."""
    if to.again and images.is_whole(to.client, to.run_id, key, step):
        return
    if isinstance(picture, str):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
    to.client.log_image(to.run_id, picture, key=key, step=step)


def as_png(picture: np.ndarray) -> str:
    """Return a picture (uint8, shape (rows, columns, 3)) as the text of a PNG, in base64."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _file(to: Sender, path: str, folder: str | None) -> None:
    to.client.log_artifact(to.run_id, path, folder)


def _dict(to: Sender, content: Mapping[str, Any], name: str) -> None:
    to.client.log_dict(to.run_id, dict(content), name)


def _dataset(to: Sender, content: Mapping[str, Mapping[str, str]]) -> None:
    """Send the keys of the cached examples of each split, and each split as an MLflow dataset."""
    _dict(to, content, "dataset.json")
    place = f"{to.client.get_run(to.run_id).info.artifact_uri}/dataset.json"
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
    to.client.log_inputs(to.run_id, datasets=inputs)


def _locator(to: Sender, path: str) -> None:
    send_locator(to, Path(path))


def send_locator(to: Sender, weights: Path) -> str:
    """Log a locator's `.pth` as an MLflow model, and return its URI."""
    earlier = None
    if to.again:
        earlier = model_logging.whole_model(to.client, to.run_id, file_digest(weights))
    return model_logging.log_locator(to.client, to.run_id, weights, earlier)


def _status(to: Sender, status: str, time_ms: int | None) -> None:
    """Send that the run is running, or (with a time) how and when it ended."""
    if time_ms is None:
        to.client.update_run(to.run_id, status=status)
    else:
        to.client.set_terminated(to.run_id, status, time_ms)


SENDERS: dict[str, Callable[..., None]] = {
    "params": _params,
    "tags": _tags,
    "metrics": _metrics,
    "picture": _picture,
    "file": _file,
    "dict": _dict,
    "dataset": _dataset,
    "locator": _locator,
    "status": _status,
}
