"""Opening the files of scans: any, or, where a model is served, only those below one folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BufferedReader, FileIO
from pathlib import Path

from jawloc.errors import InputError

_ALLOWED: ContextVar[Path | None] = ContextVar("allowed", default=None)  # None: any folder
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # for somebody who writes into a pipe
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def reading_below(folder: Path | None) -> Iterator[None]:
    """Open only files below a folder in this block, in this thread; None: any.

    That holds for each file at the moment when it is opened, also for those that other files name
    and for links that somebody changes meanwhile: InputError for any other file.
    """
    before = _ALLOWED.set(None if folder is None else folder.resolve())
    try:
        yield
    finally:
        _ALLOWED.reset(before)


def open_binary(path: Path) -> BufferedReader:
    """Open a file of a scan for reading."""
    return open(path, "rb", opener=open_below)


def open_alone(path: Path) -> BufferedReader:
    """Open a file for a reader that would open others beside it, if it knew where it is.

    (tifffile does, for TIFFs of several files, whose names may lead anywhere.)
    """
    if _ALLOWED.get() is None:
        return open_binary(path)
    return _Stream(FileIO(str(path), opener=open_below))


class _Stream(BufferedReader):
    def fileno(self) -> int:
        raise OSError("only the bytes are to be used")


def open_below(path: str | Path, flags: int) -> int:
    """Return the descriptor of a file or folder, as Python's `open` asks its `opener` for one.

    InputError if it is something else: a pipe would be waited for, a device never ends.
    """
    descriptor = _open_allowed(path, flags | _NO_WAIT)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return descriptor
    os.close(descriptor)
    raise InputError(f"{Path(path).name}: a scan must be a file or folder; this is neither")


def _open_allowed(path: str | Path, flags: int) -> int:
    allowed = _ALLOWED.get()
    if allowed is None:
        return os.open(path, flags)
    real = Path(path).resolve()
    if not real.is_relative_to(allowed):
        raise _outside(Path(path))
    try:
        return _open_linkless(real, allowed, flags)
    except OSError:
        if Path(path).resolve() == real and not real.is_symlink():
            raise  # for instance, it may not be read
        raise _outside(Path(path)) from None  # a link was put there meanwhile


def refuse_outside(path: Path) -> None:
    """Raise InputError for a file that may not be opened, whether there is one or not."""
    allowed = _ALLOWED.get()
    if allowed is not None and not path.resolve().is_relative_to(allowed):
        raise _outside(path)


def _outside(path: Path) -> InputError:
    return InputError(
        f"{path.name}: only files inside the one folder are read; this one leads out of it"
    )


def files_in(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted; OSError if that can't be read."""
    if _ALLOWED.get() is None or os.listdir not in os.supports_fd:
        return sorted(folder.iterdir())
    descriptor = open_below(folder, _FOLDER)
    try:
        return sorted(folder / name for name in os.listdir(descriptor))  # noqa: PTH208 - of one that is open
    finally:
        os.close(descriptor)


def _open_linkless(real: Path, allowed: Path, flags: int) -> int:
    """Open what was found to be no link, and below no link, and still must not be."""
    parts = real.relative_to(allowed).parts
    if os.open not in os.supports_dir_fd:  # Windows, where only administrators make links
        return os.open(real, flags)
    here = os.open(allowed, _FOLDER)
    try:
        for part in parts[:-1]:
            above, here = here, os.open(part, _FOLDER | _NO_LINK, dir_fd=here)
            os.close(above)
        return os.open(parts[-1] if parts else ".", flags | _NO_LINK, dir_fd=here)
    finally:
        os.close(here)
