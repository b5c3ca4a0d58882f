"""Which weights a model in the store has: a resumed run may have logged others before."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel

from jawloc.inference.models import file_digest
from jawloc.reporting.tracking.model_files import WEIGHTS_ENDING

ARTIFACTS = "artifacts"  # the folder in which MLflow keeps a model's own files


def has_weights(client: MlflowClient, model: LoggedModel, digest: str) -> bool:
    """Return whether a model's `.pth` is the file with this SHA-256."""
    files = client.list_logged_model_artifacts(model.model_id, ARTIFACTS)
    with tempfile.TemporaryDirectory(prefix="jawloc-") as folder:
        where = {"dst_path": folder, "tracking_uri": client.tracking_uri}
        return any(
            file_digest(Path(download_artifacts(f"{model.artifact_location}/{file.path}", **where)))
            == digest
            for file in files
            if file.path.endswith(WEIGHTS_ENDING)
        )
