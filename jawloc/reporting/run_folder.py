"""The folder that a run writes into: what it may be called, and when it is made, kept or left."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jawloc.errors import InputError

OUTPUT_FOLDER = Path("script_output") / "jaw_location"
CHECKPOINT = "checkpoint.pt"
OWN_FILES = ("*.png", "*.csv", "*.json", "*.pth", "config.yml", CHECKPOINT)


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
        interrupted = (folder / CHECKPOINT).is_file()
        way_on = "--resume goes on with its interrupted run, or " if interrupted else ""
        raise InputError(
            f"--model-name: {model_name!r} is taken ({folder}); {way_on}"
            f"--overwrite replaces it, or choose another name"
        )
    return folder


@contextmanager
def run_folder(folder: Path, *, keep: bool) -> Iterator[None]:
    """Make a run's folder; if the run ends early, leave it only if it can be gone on with.

    Parameters
    ----------
    keep : what is in the folder stays; otherwise jawloc's own files in it, and only they, go

    Raises
    ------
    KeyboardInterrupt
        In the place of one without words: says how to go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not keep:
        _remove_own_files(folder)
    try:
        yield
    except BaseException as error:
        resumable = (folder / CHECKPOINT).is_file()
        if not resumable:
            _remove_own_files(folder)
            with suppress(OSError):  # somebody else's files are in it
                folder.rmdir()
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(
                "interrupted; run it again with --resume to go on from its last whole epoch"
                if resumable
                else "interrupted before the end of the first epoch; nothing is kept of this run"
            ) from None
        raise


def _remove_own_files(folder: Path) -> None:
    for pattern in OWN_FILES:
        for path in folder.glob(pattern):
            path.unlink()
