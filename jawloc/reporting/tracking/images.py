"""Tiles, the pictures in a run's image grid, which MLflow knows by their file names alone.

MLflow stores each twice: as it is, and as a thumbnail of at most 256 pixels, which the grid shows.
"""

from __future__ import annotations

from contextlib import suppress

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

FOLDER = "images"
COMPRESSED = "+compressed."  # of each picture's two files, the one that is written last


def last_thumbnails(client: MlflowClient, run_id: str) -> list[str]:
    """Return the path of each row's last thumbnail among the artifacts, by the rows' names."""
    last: dict[str, tuple[int, str]] = {}
    for file in client.list_artifacts(run_id, FOLDER):
        row, _, rest = file.path.partition("+step+")
        if COMPRESSED in rest:
            last[row] = max(last.get(row, (-1, "")), (int(rest.partition("+")[0]), file.path))
    return [last[row][1] for row in sorted(last)]


def is_whole(client: MlflowClient, run_id: str, key: str, step: int) -> bool:
    """Return whether the grid has a picture; if it has only a part, remove that.

    A store that can't remove artifacts keeps it.
    """
    name = f"{FOLDER}/{key.replace('/', '~')}+step+{step}+"  # as MLflow calls it
    paths = [file.path for file in client.list_artifacts(run_id, FOLDER)]
    parts = [path for path in paths if path.startswith(name)]
    if any(COMPRESSED in path for path in parts):
        return True
    if parts:
        repository = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
        for path in parts:
            with suppress(NotImplementedError):
                repository.delete_artifacts(path)
    return False
