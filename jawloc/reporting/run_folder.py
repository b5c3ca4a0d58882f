"""The folder that a run writes into: what it may be called, and when it is made, kept or left."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jawloc.errors import InputError

OUTPUT_FOLDER = Path("script_output") / "jaw_location"
CHECKPOINT = "checkpoint.pt"
REPLACED = ".replaced"  # holds the old run's files until the new one has a whole epoch
OWN_FILES = (
    *(f"{split}_heatmap_{kind}.png" for split in ("train", "val") for kind in ("example", "pred")),
    *(f"{split}_heatmap_example_fine.png" for split in ("train", "val")),
    "heatmap_epoch_*_sigma_*.png",
    *(f"{name}.png" for name in ("losses", "metrics", "sigma", "test_heatmap", "test_cropped")),
    *(f"{name}.png" for name in ("test_centroid", "test_centroid_downsampled")),
    *(f"{name}.png" for name in ("test_centroid_truth", "truth_cropped")),
    # of several objects, each has its own
    *(f"{name}_*.png" for name in ("test_heatmap", "test_cropped", "test_centroid")),
    "truth_cropped_*.png",
    *("metrics.csv", "summary.json", "config.yml", "out_of_fold.csv", CHECKPOINT),
)
FOLD_FOLDERS = "fold_*"  # of a cross-validation: each holds what a training leaves


def output_folder(base: Path, model_name: str, *, overwrite: bool, resume: bool) -> Path:
    """Return the run's folder, once its name is known to be plain and free."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9 ._+=-]*", model_name) or model_name.endswith(
        (".", " ")
    ):
        raise InputError(
            "--model-name: a model's name is a folder's name, of letters, digits, spaces and "
            f". _ + = - only and not beginning with a dot; received {model_name!r}"
        )
    folder = base / OUTPUT_FOLDER / model_name
    if resume and not (folder / CHECKPOINT).is_file():
        raise InputError(f"--resume: {folder} holds no interrupted run; received {model_name!r}")
    if folder.exists() and not overwrite and not resume:
        raise _taken(folder)
    return folder


def _taken(folder: Path) -> InputError:
    interrupted = (folder / CHECKPOINT).is_file()
    way_on = "--resume goes on with its interrupted run, or " if interrupted else ""
    return InputError(
        f"--model-name: {folder.name!r} is taken ({folder}); {way_on}"
        f"--overwrite replaces it, or choose another name"
    )


@contextmanager
def run_folder(folder: Path, *, overwrite: bool, resume: bool) -> Iterator[None]:
    """Make a run's folder; if the run ends early, leave it only if it can be gone on with.

    Parameters
    ----------
    overwrite : an earlier run's files, and only they, are replaced; until the new run has
        a whole epoch, they come back if it ends
    resume : what is in the folder stays

    Raises
    ------
    InputError
        Another run took the name since `output_folder` looked.
    KeyboardInterrupt
        In the place of one without words: says how to go on.
    """
    try:
        folder.mkdir(parents=True, exist_ok=overwrite or resume)
    except FileExistsError:
        raise _taken(folder) from None
    if not resume:
        _move_own_files(folder, folder / REPLACED)
    try:
        yield
    except BaseException as error:
        resumable = (folder / CHECKPOINT).is_file()
        if not resumable:
            _put_back(folder)
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(
                "interrupted; the same command with --resume goes on from its last whole epoch"
                if resumable
                else "interrupted before the end of the first epoch; nothing is kept of this run"
            ) from None
        raise
    finally:
        shutil.rmtree(folder / REPLACED, ignore_errors=True)


def _own_files(folder: Path) -> list[Path]:
    patterns = (*OWN_FILES, f"{folder.name}.pth")
    # once each, though several patterns may name it
    own = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    folds = [path for path in folder.glob(FOLD_FOLDERS) if path.is_dir()]
    return own + [path for fold in folds for path in _own_files(fold)]


def _move_own_files(source: Path, target: Path) -> None:
    for path in _own_files(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    _remove_empty_folds(source)


def _remove_empty_folds(folder: Path) -> None:
    for fold in folder.glob(FOLD_FOLDERS):
        with suppress(OSError):  # something is in it, or it is no folder
            fold.rmdir()


def _put_back(folder: Path) -> None:
    """Take a run's beginnings away and bring back what it was to replace."""
    for path in _own_files(folder):
        path.unlink()
    _remove_empty_folds(folder)
    for path in [path for path in (folder / REPLACED).rglob("*") if path.is_file()]:
        place = folder / path.relative_to(folder / REPLACED)
        place.parent.mkdir(exist_ok=True)
        path.replace(place)
    shutil.rmtree(folder / REPLACED, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()
