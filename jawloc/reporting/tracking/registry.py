"""Which run made a model, its versions in the registry, and which of them is the champion."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient, MlflowException

from jawloc.errors import InputError
from jawloc.inference.models import file_digest
from jawloc.reporting.tracking.model_files import STORE_SCHEMES
from jawloc.reporting.tracking.runs import TrackedRun, tracked_run
from jawloc.reporting.tracking.store import (
    EXPERIMENT,
    download_model,
    open_client,
    reached,
)

REGISTERED, CHAMPION = "jaw_locator", "champion"
WEIGHTS_TAG = "jawloc.weights_sha256"


@dataclass(frozen=True)
class KnownModel:
    """What the store and the model's folder know of a model.

    Attributes
    ----------
    name : that a new run would have
    weights : its `.pth`
    digest : SHA-256 of that
    run_id : the run that made it; None where no run is known
    version : in the registry, where the user named one
    """

    name: str
    weights: Path
    digest: str
    run_id: str | None
    version: str | None = None


@dataclass(frozen=True)
class Version:
    """A version of the registered model."""

    number: str
    digest: str | None  # of its weights, where jawloc registered it

    @property
    def uri(self) -> str:
        """Return what MLflow calls it."""
        return f"models:/{REGISTERED}/{self.number}"


def find_model(root: Path, model: str, weights: Path, run_id: str | None) -> KnownModel:
    """Find the run that made a model, so that its evaluations are logged there.

    An MLflow URI says it, and so does the model's own record. For a file without one (of jawloc
    0.1.0), the store may have a run that holds the very same weights: one of its name, or one that
    an earlier evaluation of the file opened.

    Parameters
    ----------
    model : what the user calls it
    weights : its file
    run_id : of the model's own record, None without one
    """
    client = open_client(root)
    with reached(str(client.tracking_uri)):
        digest, found, version = file_digest(weights), None, None
        if model.startswith(STORE_SCHEMES):
            found, version = _run_and_version(client, model)
        elif _has_run(client, run_id):
            found = run_id
        found = found or _run_of_name(root, client, weights, digest)
        found = found or _run_of_digest(client, digest)
    return KnownModel(weights.stem, weights, digest, found, version)


def _has_run(client: MlflowClient, run_id: object) -> bool:
    if not isinstance(run_id, str):
        return False
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _run_and_version(client: MlflowClient, uri: str) -> tuple[str | None, str | None]:
    """Return the run of an MLflow URI, and the version of our registered model that it names."""
    scheme, _, rest = uri.partition(":/")
    name, _, path = rest.strip("/").partition("/")
    if scheme == "runs":
        return name, None
    if "@" in name:
        name, _, alias = name.rpartition("@")
        found = client.get_model_version_by_alias(name, alias)
    elif path.isdigit():
        found = client.get_model_version(name, path)
    elif path:
        versions = client.search_model_versions(f"name = '{name}'")
        found = max(versions, key=lambda v: int(v.version))
    else:
        return client.get_logged_model(name).source_run_id, None
    run_id = found.run_id if _has_run(client, found.run_id) else None
    return run_id, str(found.version) if name == REGISTERED else None


def _run_of_name(root: Path, client: MlflowClient, weights: Path, digest: str) -> str | None:
    """Return the newest run of a model's name whose outputs hold the very same weights."""
    if "'" in weights.stem:
        return None
    for run in _search(client, f"attributes.run_name = '{weights.stem}'"):
        with tempfile.TemporaryDirectory(prefix="jawloc-") as folder, suppress(InputError):
            uri = f"runs:/{run.info.run_id}/outputs/{weights.name}"
            if file_digest(download_model(root, uri, Path(folder))) == digest:
                return str(run.info.run_id)
    return None


def _run_of_digest(client: MlflowClient, digest: str) -> str | None:
    for run in _search(client, f"tags.`{WEIGHTS_TAG}` = '{digest}'"):
        return str(run.info.run_id)
    return None


def _search(client: MlflowClient, condition: str) -> list[Any]:
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    return list(client.search_runs([experiment], condition, order_by=["start_time DESC"]))


# What an evaluation leaves in the store


def log_evaluation(
    root: Path, known: KnownModel, numbers: Mapping[str, float], files: Sequence[Path]
) -> KnownModel:
    """Log an evaluation's numbers and files to the model's run; a new one where it has none."""
    if known.run_id is None:
        tags = {WEIGHTS_TAG: known.digest}
        with tracked_run(root, known.name, params={"model": known.name}, tags=tags) as run:
            _log(run, numbers, files)
        return KnownModel(**{**vars(known), "run_id": run.run_id})
    client = open_client(root)
    with reached(str(client.tracking_uri)):  # the run has ended, and stays as it ended
        _log(TrackedRun(client, known.run_id), numbers, files)
    return known


def _log(run: TrackedRun, numbers: Mapping[str, float], files: Sequence[Path]) -> None:
    run.log_summary(numbers)
    for path in files:
        run.log_file(path, "evaluation")


# Versions and the champion


def find_champion(root: Path) -> Version | None:
    """Return the version that has the alias `champion`, or None."""
    client = open_client(root)
    with reached(str(client.tracking_uri)):
        try:
            found = client.get_model_version_by_alias(REGISTERED, CHAMPION)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return Version(str(found.version), found.tags.get(WEIGHTS_TAG))


def register(root: Path, known: KnownModel) -> Version:
    """Register a model whose run is known as a new version, unless it is one already."""
    if known.run_id is None:
        raise ValueError(f"{known.name}: only the model of a run can be registered")
    client = open_client(root)
    with reached(str(client.tracking_uri)):
        if known.version is not None:
            return Version(known.version, known.digest)
        model = _logged_model(client, known.run_id)
        versions = list(client.search_model_versions(f"name = '{REGISTERED}'"))
        for one in sorted(versions, key=lambda v: int(v.version)):
            same = one.tags.get(WEIGHTS_TAG) == known.digest
            if same or (model is not None and one.source in _places(model)):
                return Version(str(one.version), known.digest)
        if model is None:
            uri = TrackedRun(client, known.run_id).log_locator(known.weights)
            model = client.get_logged_model(uri.removeprefix("models:/"))
        _ensure_registered(client)
        made = client.create_model_version(
            REGISTERED,
            # its place, not its URI, which MLflow would look up in its global store
            model.artifact_location,
            known.run_id,
            tags={WEIGHTS_TAG: known.digest},
            model_id=model.model_id,
        )
        return Version(str(made.version), known.digest)


def _logged_model(client: MlflowClient, run_id: str) -> Any:
    """Return the newest model that is logged to a run, or None."""
    run = client.get_run(run_id)
    outputs = run.outputs.model_outputs if run.outputs else []
    models = [client.get_logged_model(output.model_id) for output in outputs]
    ready = [model for model in models if str(model.status).endswith("READY")]
    return max(ready, key=lambda model: model.creation_timestamp, default=None)


def _places(model: Any) -> tuple[str, str]:
    """Return what a version's source may be that somebody made of a logged model."""
    return f"models:/{model.model_id}", str(model.artifact_location)


def _ensure_registered(client: MlflowClient) -> None:
    try:
        client.create_registered_model(REGISTERED)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def tag_version(root: Path, version: Version, tags: Mapping[str, str]) -> None:
    """Write down what a decision rests on."""
    client = open_client(root)
    with reached(str(client.tracking_uri)):
        for key, value in tags.items():
            client.set_model_version_tag(REGISTERED, version.number, key, value)


def make_champion(root: Path, version: Version) -> None:
    """Give a version the alias `champion`, which its predecessor loses."""
    client = open_client(root)
    with reached(str(client.tracking_uri)):
        client.set_registered_model_alias(REGISTERED, CHAMPION, version.number)
