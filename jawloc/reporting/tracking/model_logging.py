"""A locator as an MLflow model."""

from __future__ import annotations

import math
import tempfile
import warnings
from pathlib import Path

import mlflow.pyfunc
from mlflow import MlflowClient, entities
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

from jawloc.reporting.tracking.logged_weights import has_weights
from jawloc.reporting.tracking.source import PACKAGE, locator_requirements

MODEL_NAME = "locator"


def whole_model(client: MlflowClient, run_id: str, digest: str) -> str | None:
    """Return the id of the run's ready model with these weights; end those of killed processes.

    `digest` is the SHA-256 of the weights' file; None is returned where there is no such model.
    """
    ready, known = None, client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([known], f"source_run_id = '{run_id}'"):
        if model.status == entities.LoggedModelStatus.READY:
            ready = model.model_id if has_weights(client, model, digest) else ready
        elif model.status != entities.LoggedModelStatus.FAILED:
            client.finalize_logged_model(model.model_id, "FAILED")
    return ready


def log_locator(
    client: MlflowClient, run_id: str, weights: Path, earlier: str | None = None
) -> str:
    """Log the `.pth` of a run's locator as its model, and return the model's URI.

    `earlier` is the id of a ready model with these weights, which then stands for it.
    """
    run = client.get_run(run_id)
    model_id = _log_files(client, run, weights) if earlier is None else earlier
    outputs = run.outputs.model_outputs if run.outputs else []
    if model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [entities.LoggedModelOutput(model_id, step=0)])
    lasts = [client.get_metric_history(run_id, key)[-1] for key in run.data.metrics]
    summary = [
        entities.Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id, run_id=run_id)
        for m in lasts
        # a database would keep NaN as 0 with a model
        if m.step == 0 and not math.isnan(m.value)
    ]
    client.log_batch(run_id, metrics=summary)
    return f"models:/{model_id}"


def _log_files(client: MlflowClient, run: entities.Run, weights: Path) -> str:
    """Log a model's files, and return its id."""
    run_id = run.info.run_id
    model = client.create_logged_model(
        run.info.experiment_id, MODEL_NAME, run_id, params=run.data.params
    )
    model_id = str(model.model_id)
    description = Model(model.artifact_location, run_id, model_uuid=model_id, model_id=model_id)
    try:
        with tempfile.TemporaryDirectory() as folder:
            _save_model(Path(folder) / "model", weights, description)
            client.log_model_artifacts(model_id, str(Path(folder) / "model"))
    except BaseException:
        client.finalize_logged_model(model_id, "FAILED")
        raise
    client.finalize_logged_model(model_id, "READY")
    return model_id


def _save_model(folder: Path, weights: Path, description: Model) -> None:
    signature = ModelSignature(
        # a nameless column, since MLflow then takes lists as well as tables
        inputs=Schema([ColSpec("string")]),
        outputs=Schema(
            [ColSpec("string", name) for name in ("scan", "object")]
            + [ColSpec("double", f"{axis}_voxels") for axis in "zyx"]
            + [ColSpec("double", f"{axis}_mm", required=False) for axis in "zyx"]
            + [ColSpec("double", "spread_voxels")]
            + [ColSpec("double", name, required=False) for name in ("radius_voxels", "confidence")]
            + [ColSpec("string", name) for name in ("status", "radius_note")]
        ),
    )
    with warnings.catch_warnings():
        # an example would be a path on this machine, and checking it would read a whole scan
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        mlflow.pyfunc.save_model(
            path=str(folder),
            mlflow_model=description,
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"weights": str(weights)},
            code_paths=[str(PACKAGE)],
            pip_requirements=locator_requirements(),
            signature=signature,
            model_config={"allowed_folder": None},
        )
