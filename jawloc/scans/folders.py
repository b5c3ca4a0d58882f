"""Folders that results are written to."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from jawloc.errors import InputError


def make_writable(folder: Path, rule: str) -> None:
    """Make a folder; raise InputError, the rule and the reason, if it can't be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:  # some bytes, since a quota may be used up
            file.write(bytes(4096))
    except OSError as error:
        raise InputError(f"{rule}; {error.strerror}") from error
