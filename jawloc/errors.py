"""The exceptions whose messages are written for the user."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOST_CHARACTERS = 2000  # of a line of a message: what a damaged file holds may be of any length
_SHOWN_AT_END = 300
# Control characters but for the line break between sentences, what changes the direction of
# writing, what some programs take for line breaks, and halves of characters, which nothing prints.
_UNPRINTABLE = re.compile("[\0-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
HIDDEN = "***"
_SECRET_NAME = r"[\w.-]*(?:pass|pwd|token|secret|key|sig|cred|auth)[\w.-]*"
_NO_SECRET = "viewStateShareKey"  # of an address of MLflow's pages: which saved view to show
_SECRETS = tuple(
    (re.compile(pattern, re.IGNORECASE), shown)
    for pattern, shown in (
        # scheme://user:password@host; a database's password may hold slashes
        (r"(\b[a-z][\w+.-]*://[^\s:/@]*:)[^\s/?#'\"]*@", rf"\1{HIDDEN}@"),
        (r"(\b(?!https?:)[a-z][\w+.-]*://[^\s:/@]*:)[^\s'\"]*@", rf"\1{HIDDEN}@"),
        # so may one of a web address, whose host can have a port and slashes behind it as well
        (r"(\bhttps?://[^\s:/@]*:)(?!\d+(?:[/?#]|$))[^\s'\"]*@", rf"\1{HIDDEN}@"),
        (r"(\bhttps?://)[^\s:/@?#'\"]+@", rf"\1{HIDDEN}@"),  # a token without a user
        (rf"([?&](?!{_NO_SECRET}=){_SECRET_NAME}=)[^\s&#'\")]*", rf"\1{HIDDEN}"),
        (r"(\b(?:password|passwd|pwd)=)[^\s&'\"]+", rf"\1{HIDDEN}"),  # in a driver's own form
    )
)


def without_secrets(text: str) -> str:
    """Return a text with the passwords, tokens and keys in its addresses replaced by `***`."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def printable(message: str) -> str:
    """Return a message with what can't be shown written as its code, and long lines cut."""
    text = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), message)
    return "\n".join(map(_cut, text.split("\n")))


def _cut(line: str) -> str:
    if len(line) <= MOST_CHARACTERS:
        return line
    start = line[: MOST_CHARACTERS - _SHOWN_AT_END - 50]
    return f"{start}... ({len(line)} characters) ...{line[-_SHOWN_AT_END:]}"


class InputError(Exception):
    """A user's input breaks a rule.

    The message is one sentence with the file (or key), the rule and the value, for instance
    ``131.dcm: the mask is empty; a scan needs at least one labelled voxel``. The command
    line prints it without a traceback and exits with code 2. What a file holds can be part of it:
    secrets in addresses are hidden, and the message is made `printable`.
    """

    def __str__(self) -> str:
        return printable(without_secrets(super().__str__()))


class TrainingError(Exception):
    """Training cannot go on (for instance a loss that is not finite); exit code 1."""

    def __str__(self) -> str:
        return without_secrets(super().__str__())


class DiskFullError(OSError):
    """A file did not fit on its disk; the message names the folder and the bytes needed."""

    def __init__(self, path: Path, needed_bytes: int, free_bytes: int) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._numbers = needed_bytes, free_bytes
        self._path = path
        self.sentence = (
            f"{path.parent}: the disk is full; {path.name} needs {as_size(needed_bytes)}, and "
            f"{as_size(free_bytes)} are free"
        )

    def __str__(self) -> str:
        return self.sentence

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._path, *self._numbers)  # else it could not be sent by a worker


def as_size(number: int) -> str:
    """Return a number of bytes as text, in MB (10^6 bytes) where it is large."""
    return f"{number} bytes" if number < 100_000 else f"{number / 1e6:.1f} MB"


def comma_hint(text: object) -> str:
    """Return how to write a number that was given with a decimal comma; else an empty text."""
    plain = str(text).strip()
    if re.fullmatch(r"[+-]?\d+,\d+", plain) is None:
        return ""
    return f"; with a decimal point: {plain.replace(',', '.')}"


def one_line(error: BaseException) -> str:
    """Return another library's message without its line breaks; its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def reason_of(error: Exception, name: str) -> str:
    """Return in one sentence why work on the scan of that name ended, whatever was raised."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{name}: there is not enough memory for this scan"
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: the file can't be read; {error.strerror}"
    return f"{name}: jawloc failed unexpectedly ({type(error).__name__}); please report this scan"


@contextmanager
def as_input_error(message: str, *types: type[Exception]) -> Iterator[None]:
    """Turn a library's exceptions, of the given types or of any, into InputError with a message."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if types and not isinstance(error, types):
            raise
        raise InputError(f"{message}; {one_line(error)}") from error
