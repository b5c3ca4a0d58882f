"""Folders that results go into."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from jawloc.errors import InputError


def make_writable(folder: Path, rule: str) -> None:
    """Make a folder, and see that it can be written to.

    Raises
    ------
    InputError
        If it can't: the rule, and what the operating system says.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"{rule}; {error.strerror}") from error
