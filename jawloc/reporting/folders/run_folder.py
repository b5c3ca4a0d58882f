"""The folder that a run writes into: what it may be called, and when it is made, kept or left."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from jawloc.errors import InputError
from jawloc.reporting.folders.folder_lock import exclusive_lock
from jawloc.reporting.folders.own_files import CHECKPOINT as CHECKPOINT
from jawloc.reporting.folders.own_files import own_names, own_run_names, refuse_foreign, run_names
from jawloc.scans.atomic import target_of_temporary
from jawloc.scans.folders import make_writable
from jawloc.scans.manifest import MANIFEST, start_manifest

OUTPUT_FOLDER = Path("script_output") / "jaw_location"
LOCKS_FOLDER = ".locks"
REPLACED = ".replaced"  # holds the old run's files until the new one has a whole epoch
UNFINISHED = ".replacing"  # the same while files are moved into it, or back
_FOLD = re.compile(r"fold_\d+")  # of a cross-validation: each holds what a training leaves


@contextmanager
def claimed_folder(
    base: Path,
    model_name: str,
    objects: Sequence[str],
    *,
    overwrite: bool,
    resume: bool,
    folds: int = 0,
) -> Iterator[Path]:
    """Hold a run's folder against other processes, once its name is known to be plain and free.

    The folder is not made yet. A claim within the same claim is granted.

    Raises
    ------
    InputError
        If the name is not plain, taken, or in use by another process, or if the folder holds a
        file that jawloc didn't write and would overwrite.
    """
    _check_name(model_name)
    folder = base / OUTPUT_FOLDER / model_name
    with (
        _nothing_left_behind(base),
        exclusive_lock(lock_place(folder), f"--model-name: {model_name!r} ({folder})"),
    ):
        _recover(folder)
        output_folder(base, model_name, overwrite=overwrite, resume=resume)
        names = [folder.name, *(f"fold_{number}" for number in range(1, folds + 1))]
        if folds:
            in_the_way = {n for n in names[1:] if os.path.lexists(folder / n)}
            in_the_way = {n for n in in_the_way if not (folder / n).is_dir()}
            refuse_foreign(folder, "--model-name", lambda name: name in in_the_way, set())
        for name in names:
            place = folder if name == folder.name else folder / name
            writes = run_names(name, objects)
            refuse_foreign(place, "--model-name", writes, own_names(place, run=True))
        yield folder


@contextmanager
def _nothing_left_behind(base: Path) -> Iterator[None]:
    """Take away the folders that only a lock needed, where a run was refused."""
    output = base / OUTPUT_FOLDER
    made = [f for f in (output / LOCKS_FOLDER, output, output.parent) if not f.exists()]
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # there is something in it, or another process uses it
                folder.rmdir()


@contextmanager
def claimed_output(folder: Path) -> Iterator[None]:
    """Make the folder that `--output-dir` names, and hold it against other processes.

    Raises
    ------
    InputError
        If it can't be written to, or is in use by another process.
    """
    new = not folder.exists()
    make_writable(folder, f"--output-dir: {folder} must be a folder that can be written to")
    try:
        with exclusive_lock(lock_place(folder), f"--output-dir: {folder}"):
            yield
    finally:
        if new:
            with suppress(OSError):  # there are results in it
                folder.rmdir()


def is_run_folder(folder: Path) -> bool:
    """Say whether a training writes into a folder, or one of its folds does."""
    return _run_of(folder) is not None


def lock_place(folder: Path) -> Path:
    """Return where the lock of a folder lies: of a run's, and its folds', beside the folder."""
    run = _run_of(folder)
    if run is None:
        return folder.resolve() / ".jawloc"
    return run.parent.resolve() / LOCKS_FOLDER / run.name


def _run_of(folder: Path) -> Path | None:
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - links stay what they are called
    for run in (place, place.parent):
        if run.parent.parts[-2:] == OUTPUT_FOLDER.parts and (run == place or is_fold(place)):
            return run
    return None


def is_fold(folder: Path) -> bool:
    """Say whether a folder has the name of a cross-validation's fold."""
    return _FOLD.fullmatch(folder.name) is not None


def output_folder(base: Path, model_name: str, *, overwrite: bool, resume: bool) -> Path:
    """Return the run's folder, once its name is known to be plain and free."""
    _check_name(model_name)
    folder = base / OUTPUT_FOLDER / model_name
    if resume and not (folder / CHECKPOINT).is_file():
        raise InputError(f"--resume: {folder} holds no interrupted run; received {model_name!r}")
    if folder.exists() and not overwrite and not resume:
        raise _taken(folder)
    return folder


def _check_name(model_name: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9 ._+=-]*", model_name) or model_name.endswith(
        (".", " ")
    ):
        raise InputError(
            "--model-name: a model's name is a folder's name, of letters, digits, spaces and "
            f". _ + = - only and not beginning with a dot; received {model_name!r}"
        )


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
    overwrite : the files that an earlier run and evaluations of it wrote, and only they, are
        replaced; until the new run has a whole epoch, they come back if it ends
    resume : what is in the folder stays

    Raises
    ------
    InputError
        Another run took the name since `output_folder` looked.
    KeyboardInterrupt
        In the place of one without words: says how to go on.
    """
    _recover(folder)
    try:
        folder.mkdir(parents=True, exist_ok=overwrite or resume)
    except FileExistsError:
        raise _taken(folder) from None
    kept = own_names(folder, run=True)
    if not resume:
        kept -= own_run_names(folder)
        _move_away(folder)
    try:
        start_manifest(folder, kept)
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
    """Return what a run, its folds and evaluations of it wrote into its folder; the lists last."""
    names = own_run_names(folder)
    folds = [path for path in sorted(folder.iterdir()) if is_fold(path) and path.is_dir()]
    own = [folder / name for name in sorted(names) if os.path.lexists(folder / name)]
    targets = {path: target_of_temporary(path) for path in folder.iterdir()}
    own += [path for path, target in targets.items() if target and target.name in names]
    own += [path for fold in folds for path in _own_files(fold)]
    return own + [path for path in [folder / MANIFEST] if path.is_file()]


def _move_away(folder: Path) -> None:
    """Move a run's files into REPLACED, which is there only once it has all of them."""
    moved = _own_files(folder)
    (folder / UNFINISHED).mkdir()
    for path in moved:
        place = folder / UNFINISHED / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    (folder / UNFINISHED).rename(folder / REPLACED)
    _remove_empty({path.parent for path in moved} - {folder})


def _put_back(folder: Path) -> None:
    """Take a run's beginnings away and bring back what it was to replace."""
    begun = _own_files(folder)
    for path in begun:
        path.unlink()
    _remove_empty({path.parent for path in begun} - {folder})
    if (folder / REPLACED).is_dir():
        (folder / REPLACED).rename(folder / UNFINISHED)
    _move_back(folder)
    with suppress(OSError):
        folder.rmdir()


def _move_back(folder: Path) -> None:
    for path in [path for path in (folder / UNFINISHED).rglob("*") if not path.is_dir()]:
        place = folder / path.relative_to(folder / UNFINISHED)
        place.parent.mkdir(exist_ok=True)
        path.replace(place)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def _recover(folder: Path) -> None:
    """Do what a killed run had still to do: bring back what it hadn't replaced by an epoch."""
    _move_back(folder)
    if (folder / REPLACED).is_dir():
        if (folder / CHECKPOINT).is_file():
            shutil.rmtree(folder / REPLACED, ignore_errors=True)
        else:
            _put_back(folder)


def _remove_empty(folds: set[Path]) -> None:
    for fold in folds:
        shutil.rmtree(fold / REPLACED, ignore_errors=True)
        with suppress(OSError):  # something is in it
            fold.rmdir()
