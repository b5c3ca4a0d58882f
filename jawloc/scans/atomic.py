"""Writing a file atomically: to a temporary file beside it, which is renamed once complete.

And where: under a plain name, and through no link.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from tempfile import TemporaryFile

from jawloc.errors import InputError

_TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}\.part\.(.+)")
_TEMPORARY_0_1_0 = re.compile(r"\.(.+)\.\d+(?:-[0-9a-f]{8}\.part|\.part|\.tmp)")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, with the same ending, to be written to.

    It replaces `path` if the block succeeds, and is removed otherwise.
    """
    temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.part.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def target_of_temporary(path: Path) -> Path | None:
    """Return the file that a killed process was writing to `path`; None for any other file."""
    match = _TEMPORARY.fullmatch(path.name) or _TEMPORARY_0_1_0.fullmatch(path.name)
    return path.with_name(match[1]) if match else None


def is_file_name(text: str) -> bool:
    """Return whether a text is the name of a file in some folder, and of nothing else."""
    plain = text not in ("", ".", "..") and "\0" not in text
    return plain and "/" not in text and PurePath(text).name == text


def refuse_links(option: str, *places: Path) -> None:
    """Raise InputError if a folder in an output folder, or a file, is a link to somewhere else."""
    for place in places:
        if place.is_symlink():
            raise InputError(
                f"{option}: {place} is a link, and jawloc writes through none in its output "
                f"folders; move it away first"
            )


def make_writable(folder: Path, rule: str) -> None:
    """Make a folder; raise InputError, the rule and the reason, if it can't be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:  # some bytes, since a quota may be used up
            file.write(bytes(4096))
    except OSError as error:
        raise InputError(f"{rule}; {error.strerror}") from error
