"""The folder that a run writes into: its name, its lock, and what is left when a run ends early."""

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
from jawloc.reporting.folders.own_files import UNSENT as UNSENT
from jawloc.reporting.folders.own_files import own_names, own_run_names, refuse_foreign, run_names
from jawloc.scans.atomic import make_writable, refuse_links, target_of_temporary
from jawloc.scans.manifest import MANIFEST, start_manifest, written_files

OUTPUT_FOLDER = Path("script_output") / "jaw_location"
LOCKS_FOLDER = ".locks"
SUMMARY = "summary.json"
REPLACED = ".replaced"  # holds the old run's files until the new one has a whole epoch
UNFINISHED = ".replacing"  # the same while files are moved into it, or back
_HOW_TO_GO_ON = "the same command with --resume goes on from its last checkpoint"
_FOLD = re.compile(r"fold_\d+")  # of a cross-validation: each holds what a training leaves


@contextmanager
def locked_run_folder(
    base: Path,
    model_name: str,
    objects: Sequence[str],
    *,
    overwrite: bool,
    resume: bool,
    folds: int = 0,
) -> Iterator[Path]:
    """Lock a run's folder, which isn't made yet, once its name is known to be plain and free.

    Raises InputError if the name is not plain, taken, or in use by another process, or if the
    folder holds a file that jawloc didn't write and would overwrite.
    """
    folder = _plainly_named(base, model_name)
    locks = folder.parent / LOCKS_FOLDER
    with (
        _removed_if_empty(locks, *locks.parents[:2]),
        exclusive_lock(lock_path(folder), f"--model-name: {model_name!r} ({folder})"),
    ):
        _recover(folder)
        output_folder(base, model_name, overwrite=overwrite, resume=resume)
        places = [folder / f"fold_{number}" for number in range(1, folds + 1)]
        files = {place.name for place in places if os.path.lexists(place) and not place.is_dir()}
        refuse_foreign(folder, "--model-name", files.__contains__, set())
        for place in (folder, *places):
            writes = run_names(place.name, objects)
            refuse_foreign(place, "--model-name", writes, own_names(place, run=True))
        yield folder


@contextmanager
def _removed_if_empty(*folders: Path) -> Iterator[None]:
    """Remove those of these folders that didn't exist before the block and are empty after it."""
    made = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in made:
            _remove_if_empty(folder)


@contextmanager
def locked_output_folder(folder: Path) -> Iterator[None]:
    """Make the folder that `--output-dir` names, and lock it; remove it again if it stays empty.

    So are the folders above it that were made for it. Raises InputError if it can't be written to,
    or is in use by another process.
    """
    with _removed_if_empty(folder, *folder.absolute().parents):
        make_writable(folder, f"--output-dir: {folder} must be a folder that can be written to")
        with exclusive_lock(lock_path(folder), f"--output-dir: {folder}"):
            _remove_temporaries(folder)
            yield
            _remove_temporaries(folder)  # of workers that were killed


def lock_path(folder: Path) -> Path:
    """Return the path of a folder's lock: in the folder, or beside that of a run."""
    run = _run_of(folder)
    if run is None:
        return folder.resolve() / ".jawloc"
    return run.parent.resolve() / LOCKS_FOLDER / run.name


def is_run_folder(folder: Path) -> bool:
    """Return whether a training writes into a folder, or one of its folds does."""
    return _run_of(folder) is not None


def _run_of(folder: Path) -> Path | None:
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - links keep their names
    for run in (place, place.parent):
        in_run = run == place or _FOLD.fullmatch(place.name)
        if in_run and run.parent.parts[-2:] == OUTPUT_FOLDER.parts:
            return run
    return None


def output_folder(base: Path, model_name: str, *, overwrite: bool, resume: bool) -> Path:
    """Return the run's folder, once its name is known to be plain and free.

    `resume` takes a free name, too: of a run that was killed, nothing may have been kept yet.
    """
    folder = _plainly_named(base, model_name)
    if folder.exists() and not overwrite and not (resume and may_be_resumed(folder)):
        if resume:
            raise InputError(
                f"--resume: {folder} holds no interrupted run; received {model_name!r}"
            )
        raise _taken(folder)
    return folder


def with_unsent(folder: Path) -> list[Path]:
    """Return which folders, a run's and those of its folds, hold what is still to be sent."""
    return [path.parent for path in (*folder.glob(UNSENT), *folder.glob(f"fold_*/{UNSENT}"))]


def may_be_resumed(folder: Path) -> bool:
    """Return whether a folder holds an interrupted run, or a whole one."""
    return (folder / CHECKPOINT).is_file() or is_finished(folder) or bool(with_unsent(folder))


def is_finished(folder: Path) -> bool:
    """Return whether a folder holds the model of a run that came to its end."""
    names = (f"{folder.name}.pth", SUMMARY)
    return not (folder / CHECKPOINT).exists() and all((folder / name).is_file() for name in names)


def _plainly_named(base: Path, model_name: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9 ._+=-]*[A-Za-z0-9_+=-])?", model_name):
        raise InputError(
            "--model-name: a model's name is a folder's name, of letters, digits, spaces and "
            f". _ + = - only and not beginning with a dot; received {model_name!r}"
        )
    return base / OUTPUT_FOLDER / model_name


def _taken(folder: Path) -> InputError:
    interrupted = (folder / CHECKPOINT).is_file()
    resume = "--resume goes on with its interrupted run, or " if interrupted else ""
    return InputError(
        f"--model-name: {folder.name!r} is taken ({folder}); {resume}"
        f"--overwrite replaces it, or choose another name"
    )


@contextmanager
def run_folder(folder: Path, *, overwrite: bool, resume: bool) -> Iterator[bool]:
    """Make a run's folder; if the run ends early, keep it only if it can be resumed.

    `overwrite` replaces the files that an earlier run and evaluations of it wrote, and only they;
    if the new run ends before it has a checkpoint, they are put back. Yields whether there are any,
    so that they aren't given up before an epoch is whole. Raises InputError if another run took the
    name since `output_folder` looked; KeyboardInterrupt, and OSError (such as a full disk) with how
    to go on.
    """
    _recover(folder)
    try:
        folder.mkdir(parents=True, exist_ok=overwrite or resume)
    except FileExistsError:
        raise _taken(folder) from None
    kept, replaces = own_names(folder, run=True), False
    if not resume:
        kept -= own_run_names(folder)
        replaces = _move_away(folder)
    try:
        start_manifest(folder, kept)
        yield replaces
    except BaseException as error:
        resumable = (folder / CHECKPOINT).is_file()
        if not resumable:
            _put_back(folder)
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(
                f"interrupted; {_HOW_TO_GO_ON}"
                if resumable
                else "interrupted before the end of the first epoch; nothing is kept of this run, "
                "and the same command begins it again"
            ) from None
        if isinstance(error, OSError) and resumable and _HOW_TO_GO_ON not in str(error):
            raise OSError(f"{error}; once that is settled, {_HOW_TO_GO_ON}") from error
        raise
    finally:
        shutil.rmtree(folder / REPLACED, ignore_errors=True)


def _own_files(folder: Path) -> list[Path]:
    """Return what a run, its folds and evaluations of it wrote into its folder; manifests last."""
    names, own = own_run_names(folder), []
    for path in sorted(folder.iterdir()):
        if (target_of_temporary(path) or path).name in names:
            own.append(path)
        elif _FOLD.fullmatch(path.name) and path.is_dir():
            own += _own_files(path)
    return own + [path for path in [folder / MANIFEST] if path.is_file()]


def _move_away(folder: Path) -> bool:
    """Move a run's files into REPLACED, which exists only once it has all of them.

    Return whether there were any.
    """
    moved = _own_files(folder)
    (folder / UNFINISHED).mkdir()
    _move(moved, folder, folder / UNFINISHED)
    (folder / UNFINISHED).rename(folder / REPLACED)
    _remove_empty_folds(folder)
    return bool(moved)


def _put_back(folder: Path) -> None:
    """Remove what a run wrote and put back what it was to replace."""
    for path in _own_files(folder):
        path.unlink()
    _remove_empty_folds(folder)
    if (folder / REPLACED).is_dir():
        (folder / REPLACED).rename(folder / UNFINISHED)
    _move_back(folder)
    _remove_if_empty(folder)


def _move_back(folder: Path) -> None:
    kept = [path for path in (folder / UNFINISHED).rglob("*") if not path.is_dir()]
    _move(kept, folder / UNFINISHED, folder)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)


def _move(paths: Sequence[Path], source: Path, target: Path) -> None:
    for path in paths:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)


def _recover(folder: Path) -> None:
    """Finish what a killed run left undone: put back what no checkpoint had replaced."""
    folds = (path for path in folder.glob("fold_*") if _FOLD.fullmatch(path.name))
    refuse_links("--model-name", folder, folder / REPLACED, folder / UNFINISHED, *folds)
    _move_back(folder)
    if (folder / REPLACED).is_dir():
        if (folder / CHECKPOINT).is_file():
            shutil.rmtree(folder / REPLACED, ignore_errors=True)
        else:
            _put_back(folder)
    for place in (folder, *_folds(folder)):
        _remove_temporaries(place)
    _remove_if_empty(folder)  # it was killed between making the folder and its first file


def _remove_temporaries(folder: Path) -> None:
    """Remove what killed processes had only begun to write, here and in the folders in it."""
    own = {MANIFEST, *(written_files(folder) or ())}
    for path in [*folder.glob(".*.part.*"), *folder.glob("*/.*.part.*")]:
        target = target_of_temporary(path)
        if target is None or path.parent.is_symlink():
            continue
        if target.relative_to(folder).as_posix() in own:
            path.unlink(missing_ok=True)


def _folds(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if _FOLD.fullmatch(path.name) and path.is_dir()]


def _remove_empty_folds(folder: Path) -> None:
    """Remove the folders of folds, once their files are gone, but for those with a user's files."""
    for fold in _folds(folder):
        for name in (REPLACED, UNFINISHED):
            shutil.rmtree(fold / name, ignore_errors=True)
        _remove_if_empty(fold)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
