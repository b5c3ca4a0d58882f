"""Writing a file atomically: to a temporary file beside it, which is renamed once complete.

And where: under a plain name, and through no link.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from tempfile import TemporaryFile

from jawloc.errors import DiskFullError, InputError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_LONGEST_NAME = 232  # bytes, of the 255 that most disks allow: the rest is the temporary file's
_BLOCK_BYTES = 4096  # of a disk: the least that it must have
_TEMPORARY = re.compile(r"\.(?P<process>\d+)-[0-9a-f]{8}\.part\.(?P<target>.+)")
_TEMPORARY_0_1_0 = re.compile(r"\.(?P<target>.+)\.\d+(?:-[0-9a-f]{8}\.part|\.part|\.tmp)")


@contextmanager
def atomic_path(path: Path, needed_bytes: int = 0) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, with the same ending, to be written to.

    It replaces `path` if the block succeeds, and is removed otherwise. `needed_bytes` is the size
    of the file where it is known. Raises DiskFullError if there was no room for it.
    """
    start = f".{os.getpid()}-{secrets.token_hex(4)}.part."
    temporary = path.with_name(start + with_room(path.name))
    try:
        with full_disk_named(path, needed_bytes, temporary):
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):  # on a disk that has become read-only it can't be
            temporary.unlink(missing_ok=True)


@contextmanager
def full_disk_named(path: Path, needed_bytes: int, written: Path) -> Iterator[None]:
    """Raise DiskFullError if the block fails because a disk is full, whatever a library raises.

    `written` is the part of the file `path` that is there; it counts, like an earlier file of the
    same name, where `needed_bytes` is too low.
    """
    try:
        yield
    except DiskFullError:
        raise
    except (OSError, RuntimeError) as error:
        free, have = free_bytes(path.parent), size_of(written)
        needed = max(needed_bytes, size_of(path), have + _BLOCK_BYTES)
        number = getattr(error, "errno", None)
        # NumPy, PyTorch and SimpleITK have errors of their own for a full disk, without a number
        unnamed = number is None and free < max(needed - have, _BLOCK_BYTES)
        if number in _FULL or unnamed:
            raise DiskFullError(path, needed, free) from error
        raise


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free on a folder's disk; the folder need not exist yet."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def size_of(path: Path) -> int:
    """Return a file's bytes; 0 of one that isn't there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def with_room(name: str) -> str:
    """Return a file's name; a very long one shortened, with a digest, so that more fits before it.

    The ending stays.
    """
    if len(os.fsencode(name)) <= _LONGEST_NAME:
        return name
    start, end = name, f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}{name[-10:]}"
    while len(os.fsencode(start + end)) > _LONGEST_NAME:
        start = start[:-1]
    return start + end


def target_of_temporary(path: Path) -> Path | None:
    """Return the file that a killed process was writing to `path`; None for any other file.

    Of a very long name, it is that `with_room`.
    """
    match = _TEMPORARY.fullmatch(path.name) or _TEMPORARY_0_1_0.fullmatch(path.name)
    return path.with_name(match["target"]) if match else None


def writer_of_temporary(path: Path) -> int | None:
    """Return the number of the process that writes, or wrote, to `path`; None of any other file."""
    match = _TEMPORARY.fullmatch(path.name)
    return int(match["process"]) if match else None


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
            file.write(bytes(_BLOCK_BYTES))
    except OSError as error:
        needs = f" ({_BLOCK_BYTES} bytes are needed)" if error.errno in _FULL else ""
        raise InputError(f"{rule}; {error.strerror}{needs}") from error
