"""Text files that a user names: read whole, unless they can be no such text."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from jawloc.errors import InputError

MOST_BYTES = 2**23  # of a list or table, which has a line a scan


def read_text(path: Path, what: str, most_bytes: int = MOST_BYTES, errors: str = "strict") -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark, its lines as they end.

    `errors` is as for `bytes.decode`.

    Raises
    ------
    InputError
        If it is no file, such as a pipe, which would be waited for; or larger than such a text can
        be, so that a scan under a text's name isn't read into memory; if its name has a NUL; or
        if it is in UTF-16, as Excel saves "Unicode text".
    OSError, UnicodeDecodeError
        As `Path.read_text`.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r}: {what} must be a file; its name has a NUL")
    state = path.stat()
    if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode)):
        raise InputError(f"{path.name}: {what} must be a file; it is a pipe, socket or device")
    if state.st_size > most_bytes:
        raise InputError(
            f"{path.name}: {what} has at most {most_bytes / 1e6:.1f} MB; this file has "
            f"{state.st_size / 1e6:.1f} MB"
        )
    content = path.read_bytes()  # reading a folder raises its error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"{path.name}: {what} must be text in UTF-8; it is in UTF-16")
    return content.decode("utf-8-sig", errors)


def real_path(path: Path) -> Path:
    """Return the path without links; unlike `Path.resolve`, also of a link that leads to itself."""
    return Path(os.path.realpath(path))
