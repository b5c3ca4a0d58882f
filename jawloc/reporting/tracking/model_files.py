"""What a user calls a model (its name, a file, an MLflow URI) -> its `.pth`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jawloc.errors import InputError
from jawloc.reporting.folders.folder_lock import living_holder
from jawloc.reporting.folders.run_folder import (
    CHECKPOINT,
    OUTPUT_FOLDER,
    REPLACED,
    is_run_folder,
    lock_path,
)
from jawloc.scans.messages import closest_shown

WEIGHTS_ENDING = ".pth"
STORE_SCHEMES = ("models:/", "runs:/")


@contextmanager
def model_file(model: str, base: Path) -> Iterator[Path]:
    """Give the `.pth` of a model, for as long as the block lasts.

    A model is the path of a `.pth`, or of the folder that jawloc-train put it into; an MLflow URI
    (`models:/...`, `runs:/...`); or the name of a model below `base / script_output`, where `base`
    is the config's folder. InputError tells that there is none, or none yet, or several.
    """
    if model.startswith(STORE_SCHEMES):
        from jawloc.reporting.tracking.store import download_model  # MLflow takes seconds to import

        with tempfile.TemporaryDirectory(prefix="jawloc-") as folder:
            yield _weights_in(download_model(base, model, Path(folder)), model)
    elif Path(model).is_file() or model.endswith(WEIGHTS_ENDING) or Path(model).name != model:
        path = Path(os.path.expanduser(model))  # noqa: PTH111 - "~name" of nobody stays
        own = path / f"{path.name}{WEIGHTS_ENDING}"  # of a folder that jawloc-train made
        if not own.is_file() and path.is_dir():
            _refuse_unfinished(path)
        yield own if own.is_file() else path
    else:
        yield _named_model(model, base)


def _weights_in(downloaded: Path, uri: str) -> Path:
    """Return the one `.pth` of a downloaded model, which lies among its artifacts."""
    if downloaded.is_file():
        return downloaded
    found = sorted(downloaded.rglob(f"*{WEIGHTS_ENDING}"))
    if len(found) != 1:
        raise InputError(
            f"{uri}: a model that jawloc logged has one {WEIGHTS_ENDING} file; this has "
            f"{len(found)}"
        )
    return found[0]


def _refuse_unfinished(folder: Path) -> None:
    """Raise InputError if a training that writes, or wrote, into a folder has not finished."""
    if not is_run_folder(folder):
        return
    unfinished = f"{folder.name}: there is no model before its training has finished"
    if holder := living_holder(lock_path(folder)):
        raise InputError(f"{unfinished}; {holder} trains it")
    if (folder / CHECKPOINT).is_file():
        how = "the command that began it goes on with --resume"
        raise InputError(f"{unfinished}; it was interrupted, and {how}")
    if (folder / REPLACED).is_dir():
        how = "nothing is kept of it; the same command begins it again"
        raise InputError(f"{unfinished}; it was interrupted in its first epoch, and {how}")


def _named_model(name: str, base: Path) -> Path:
    own = base / OUTPUT_FOLDER / name / f"{name}{WEIGHTS_ENDING}"
    if own.is_file():
        return own
    _refuse_unfinished(own.parent)
    outputs = base / OUTPUT_FOLDER.parts[0]
    models = [path for path in outputs.rglob(f"*{WEIGHTS_ENDING}") if path.parent.name == path.stem]
    found = [path for path in models if path.stem == name]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(str(path) for path in sorted(found))
        raise InputError(f"{name}: several models have this name, name the file; {places}")
    names = {path.stem for path in models}
    others = f"; there are {closest_shown(name, names)}" if names else ""
    raise InputError(f"{name}: no model of this name below {outputs}{others}")
