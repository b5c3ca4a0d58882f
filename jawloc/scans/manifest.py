"""The list, kept in a folder of results, of the files that jawloc wrote there.

Before jawloc removes or replaces files in a folder that may hold a user's own, this list decides
which are jawloc's. A folder has one only where `start_manifest` began it; the functions that write
files add each name before the file appears, so that a killed process's files are listed too.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from jawloc.scans.atomic import atomic_path, full_disk_named

MANIFEST = ".jawloc-files"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # a link to another file is no list
_HEADER = (
    "# the files that jawloc wrote here, a JSON text a line; it removes and replaces no others"
)


def start_manifest(folder: Path, earlier: Iterable[str] = ()) -> None:
    """Begin a folder's list, or continue the existing one.

    Names whose file is gone are dropped, so that a user's later file of that name is the user's.
    `earlier` are files that jawloc wrote before there was a list.
    """
    _write(folder, (written_files(folder) or set()) | set(earlier))


def record_file(path: Path) -> None:
    """Add a file that is about to appear to the list of its folder, or of the one above.

    Without a list nothing is done. Several processes may add to one list.
    """
    folder, name = path.parent, path.name
    for place, known_as in ((folder, name), (folder.parent, f"{folder.name}/{name}")):
        try:
            # without O_CREAT: a folder without a list has none afterwards either
            file = os.open(place / MANIFEST, os.O_WRONLY | os.O_APPEND | _NO_LINK)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            if not (place / MANIFEST).is_symlink():
                raise
            continue
        try:
            # a line that was torn, by a full disk, ends where the next begins
            line = f"\n{json.dumps(known_as)}".encode()
            with full_disk_named(place / MANIFEST, 0, place / MANIFEST):
                if os.write(file, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)
        return


def record_names(folder: Path, names: Iterable[str]) -> None:
    """Add files that will appear, by their names relative to the folder, to its list."""
    known = written_files(folder)
    if known is not None:
        _write_names(folder, known.union(names))


def written_files(folder: Path) -> set[str] | None:
    """Return the names of the files that jawloc wrote into a folder; None without a list.

    A name is relative to the folder: of a file in it, or (`imgs/a.tif`) in a folder in it. The
    files may have been removed since. What lies behind a link is not in the folder.
    """
    if (folder / MANIFEST).is_symlink():
        return None
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    names = {name for line in lines if (name := _name(line)) is not None}
    below = {PurePosixPath(name).parent for name in names}
    outside = {place for place in below if (folder / place).is_symlink() and place.name}
    return {name for name in names if PurePosixPath(name).parent not in outside}


def forget_files(folder: Path, names: Collection[str]) -> None:
    """Take the names of removed files off a folder's list."""
    known = written_files(folder)
    if known is not None:
        _write(folder, known.difference(names))


def _write(folder: Path, names: Iterable[str]) -> None:
    _write_names(folder, (name for name in names if os.path.lexists(folder / name)))


def _write_names(folder: Path, names: Iterable[str]) -> None:
    kept = sorted(names)
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_text("\n".join([_HEADER, *map(json.dumps, kept)]), encoding="utf-8")


def _name(line: str) -> str | None:
    """Return the name on a line; None of any other line, and of what lies outside the folder."""
    try:
        name = json.loads(line)
    except ValueError:
        return None
    if not isinstance(name, str) or "\\" in name:
        return None
    path = PurePosixPath(name)
    inside = 1 <= len(path.parts) <= 2 and ".." not in path.parts and not path.is_absolute()
    return name if inside and name != MANIFEST else None
