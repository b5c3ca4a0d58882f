"""The exceptions whose messages are written for the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """A user's input breaks a rule.

    The message is one sentence with the file (or key), the rule and the value, for instance
    ``131.dcm: the mask is empty; an example needs at least one labelled voxel``. The command
    line prints it without a traceback and exits with code 2.
    """


class TrainingError(Exception):
    """Training cannot go on (for instance a loss that is not finite); exit code 1."""


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
