"""Which run made a model, its versions in the registry, and which of them is the champion."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow import MlflowClient, MlflowException
from mlflow.entities import LoggedModel, Run

from jawloc.errors import InputError
from jawloc.inference.models import file_digest
from jawloc.reporting.descriptions import add_evaluation
from jawloc.reporting.tracking.logged_weights import has_weights
from jawloc.reporting.tracking.model_files import STORE_SCHEMES
from jawloc.reporting.tracking.pages import describe, description_of, page_of
from jawloc.reporting.tracking.runs import TrackedRun, tracked_run
from jawloc.reporting.tracking.store import (
    EXPERIMENT,
    connected,
    download_model,
    logged_models,
    named_model,
)
from jawloc.reporting.tracking.views import KIND

REGISTERED, CHAMPION = "jaw_locator", "champion"
WEIGHTS_TAG = "jawloc.weights_sha256"
EVALUATION = "evaluation_"  # begins the names of an evaluation's numbers


@dataclass(frozen=True)
class KnownModel:
    """A model, and its run and version in the store."""

    name: str  # that a new run would have
    weights: Path  # its `.pth`
    digest: str  # SHA-256 of that
    run_id: str | None  # the run that made it; None where no run is known
    version: str | None = None  # in the registry, where the user named one


@dataclass(frozen=True)
class Version:
    """A version of the registered model."""

    number: str
    digest: str | None  # of its weights, where jawloc registered it

    @property
    def uri(self) -> str:
        """Return its URI in MLflow."""
        return f"models:/{REGISTERED}/{self.number}"


def find_model(root: Path, model: str, weights: Path, run_id: str | None) -> KnownModel:
    """Find the run that made a model, so that its evaluations are logged there.

    An MLflow URI names it, and so does the model's own record (`run_id`). A file without one (of
    jawloc 0.1.0) may have a run with the very same weights: one of its name, or one that an earlier
    evaluation of the file opened. `model` is what the user calls it.
    """
    with connected(root) as client:
        digest, found, version = file_digest(weights), None, None
        if model.startswith(STORE_SCHEMES):
            found, version = _run_and_version(client, model)
        elif _has_run(client, run_id):
            found = run_id
        found = found or _run_of_name(root, client, weights, digest)
        if found is None:
            runs = _search(client, f"tags.`{WEIGHTS_TAG}` = '{digest}'")
            found = runs[0].info.run_id if runs else None
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
    """Return the run of an MLflow URI, and the version of jawloc's registered model in it."""
    if uri.startswith("runs:/"):
        return uri.removeprefix("runs:/").strip("/").partition("/")[0], None
    found = named_model(client, uri)
    if isinstance(found, LoggedModel):
        return found.source_run_id, None
    run_id = found.run_id if _has_run(client, found.run_id) else None
    return run_id, str(found.version) if found.name == REGISTERED else None


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


def _search(client: MlflowClient, condition: str) -> list[Run]:
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    return list(client.search_runs([experiment], condition, order_by=["start_time DESC"]))


def log_evaluation(
    root: Path, known: KnownModel, numbers: Mapping[str, float], files: Sequence[Path]
) -> KnownModel:
    """Log an evaluation's numbers and files to the model's run; a new one where it has none.

    The numbers replace those of an earlier evaluation; without any, these stay.
    """
    with ExitStack() as stack:
        if known.run_id is None:
            params = {"model": known.name}
            tags = {WEIGHTS_TAG: known.digest, KIND: "evaluation"}
            run = stack.enter_context(tracked_run(root, known.name, params=params, tags=tags))
        else:  # the run has ended, and keeps its status
            run = TrackedRun(stack.enter_context(connected(root)), known.run_id)
        if numbers:
            run.log_summary(numbers, replaced=EVALUATION)
        for path in files:
            run.log_file(path, "evaluation")
        if numbers:
            text = add_evaluation(description_of(run), numbers, known.name, page_of(run))
            describe(run, text)
    return replace(known, run_id=run.run_id)


def find_champion(root: Path) -> Version | None:
    """Return the version that has the alias `champion`, or None."""
    with connected(root) as client:
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
    if known.version is not None:
        return Version(known.version, known.digest)
    with connected(root) as client:
        every = logged_models(client, known.run_id)
        ready = (model for model in every if str(model.status).endswith("READY"))
        # a run that was resumed may have one with its earlier weights, too
        model = next((one for one in ready if has_weights(client, one, known.digest)), None)
        # the sources that a version may have which somebody else registered
        places = (f"models:/{model.model_id}", model.artifact_location) if model else ()
        versions = client.search_model_versions(f"name = '{REGISTERED}'")
        for one in sorted(versions, key=lambda version: int(version.version)):
            if one.tags.get(WEIGHTS_TAG) == known.digest or one.source in places:
                return Version(str(one.version), known.digest)
        if model is None:
            uri = TrackedRun(client, known.run_id).log_locator(known.weights)
            model = client.get_logged_model(uri.removeprefix("models:/"))
        try:
            client.create_registered_model(REGISTERED)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = client.create_model_version(
            REGISTERED,
            model.artifact_location,  # MLflow would look a URI up in its global store
            known.run_id,
            tags={WEIGHTS_TAG: known.digest},
            model_id=model.model_id,
        )
        return Version(str(made.version), known.digest)


def tag_version(root: Path, version: Version, tags: Mapping[str, str]) -> None:
    """Tag a version, for instance with the reasons of a decision."""
    with connected(root) as client:
        for key, value in tags.items():
            client.set_model_version_tag(REGISTERED, version.number, key, value)


def make_champion(root: Path, version: Version) -> None:
    """Give a version the alias `champion`, which its predecessor loses."""
    with connected(root) as client:
        client.set_registered_model_alias(REGISTERED, CHAMPION, version.number)
