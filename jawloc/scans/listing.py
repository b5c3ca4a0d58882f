"""Files, folders and lists of them -> scans, each with a unique name."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from jawloc.errors import InputError
from jawloc.scans.dicom.header import pixel_layout, read_header
from jawloc.scans.dicom.series import dicom_slices
from jawloc.scans.scan import scan_ending, scan_id_of
from jawloc.scans.slice_folder import is_slice, picture_slices

LIST_ENDING = ".txt"


@dataclass(frozen=True)
class ListedScan:
    """A scan that was named; whether it can be read is not known yet."""

    # Names its outputs: its id, with as much of its path before it as makes it unique (upper and
    # lower case count as the same, as they do on some disks).
    name: str
    path: Path  # absolute


def describe_failure(scan: ListedScan, reason: str) -> str:
    """Return the message that a scan failed, which names it once if the reason names its file."""
    file = scan.path.name
    named = reason.startswith(f"{file}: ") and file.startswith(scan.name)
    return f"failed: {reason if named else f'{scan.name}: {reason}'}"


def list_scans(
    named: Sequence[Path],
    *,
    exclude: Path | None = None,
    known: Mapping[Path, str] = MappingProxyType({}),
) -> list[ListedScan]:
    """List the scans in files, folders and `.txt` lists, each once, in their order.

    A folder is one scan if it holds 2-D TIFFs or a DICOM series; otherwise it stands for all scans
    in it and in the folders below it. A list has a path a line, relative to the list's folder or
    else to the current one; `#` begins a comment.

    Parameters
    ----------
    exclude : a folder that is not searched: the one that results are written to
    known : names that are taken, by their paths

    Raises
    ------
    InputError
        A list that is missing, unreadable or empty, or a folder without any scan. A missing scan
        is listed: opening it raises the error.
    """
    paths: dict[Path, Path] = {}  # by their real paths
    for place in named:
        for scan in _scans_of(place, exclude):
            paths.setdefault(scan.resolve(), scan.absolute())
    if not paths:
        raise InputError("name at least one scan; received none")
    resolved = {path.resolve(): name for path, name in known.items()}
    known = {**known, **{paths[real]: name for real, name in resolved.items() if real in paths}}
    names = _unique_names(list(paths.values()), known)
    return [ListedScan(names[path], path) for path in paths.values()]


def _scans_of(place: Path, exclude: Path | None) -> list[Path]:
    if place.suffix.lower() == LIST_ENDING and not _is_folder(place):
        # one folder of a long list must not stop the others: opening it raises its error
        return [scan for path in _read_list(place) for scan in _expanded(path, exclude) or [path]]
    found = _expanded(place, exclude)
    if not found:
        raise InputError(f"{place}: a folder of scans must hold at least one; it has none")
    return found


def _read_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: a list of scans must be text (UTF-8); it isn't") from error
    except OSError as error:
        raise InputError(f"{path}: a list of scans must be readable; {error.strerror}") from error
    found = [_listed_path(line.strip(), path.parent) for line in lines]
    paths = [path for path in found if path is not None]
    if not paths:
        raise InputError(f"{path.name}: a list must name at least one scan; it names none")
    return paths


def _listed_path(line: str, folder: Path) -> Path | None:
    """Return the path on a line of a list: the whole line if that exists, else up to a `#`."""
    texts = [line, re.split(r"(?:^|\s)#", line)[0].strip()]
    for text in texts:
        home = os.path.expanduser(text)  # noqa: PTH111 - "~name" of nobody stays
        for candidate in (folder / home, Path(text)):
            if text and not text.startswith("#") and _exists(candidate):
                return candidate
    return folder / texts[1] if texts[1] else None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder that may not be searched
        return False


def _is_folder(path: Path) -> bool:
    return _exists(path) and path.is_dir()


def _expanded(path: Path, exclude: Path | None) -> list[Path]:
    return list(_walk(path, exclude, set(), stacks=True)) if _is_folder(path) else [path]


def files_below(folder: Path, exclude: Path | None) -> Iterator[Path]:
    """Yield the files of a scan's ending below a folder, without hidden ones and those excluded."""
    return _walk(folder, exclude, set(), stacks=False)


def _walk(
    folder: Path, exclude: Path | None, visited: set[Path], *, stacks: bool
) -> Iterator[Path]:
    """Yield scans; with `stacks`, a folder of slices is one."""
    here = folder.resolve()
    if here in visited or (exclude and here == exclude.resolve()):  # circles of links end here
        return
    visited.add(here)
    try:
        inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError:
        yield folder  # opening it raises the reason why it can't be read
        return
    if stacks and _is_one_scan([path for path in inside if path.is_file()]):
        yield folder
        return
    for path in inside:
        if _is_folder(path):
            yield from _walk(path, exclude, visited, stacks=stacks)
        elif scan_ending(path):
            yield path


def _is_one_scan(files: Sequence[Path]) -> bool:
    """Return whether files are the slices of one scan, decided by the first and the last."""
    pictures = picture_slices(files)
    slices = pictures or dicom_slices(files)
    found = {_is_slice(path, is_picture=bool(pictures)) for path in slices[:1] + slices[-1:]}
    return True in found and False not in found


def _is_slice(path: Path, *, is_picture: bool) -> bool | None:
    """Return whether a file is a single slice; None if it can't be read."""
    try:
        if is_picture:
            return is_slice(path)
        return pixel_layout(read_header(path), path).shape_zyx[0] == 1
    except (InputError, OSError):
        return None


def _unique_names(paths: Sequence[Path], known: Mapping[Path, str]) -> dict[Path, str]:
    """Name each path by its id; where that is taken, with more and more of its folders before it.

    Files of one id in one folder are named by their whole names. A path that is known keeps its
    name; the others are named as if none were known, unless that is taken.
    """
    names: dict[Path, str] = {}
    taken = {name.casefold() for name in known.values()}
    twins = Counter((path.parent, scan_id_of(path).casefold()) for path in paths)
    own = {}
    for path in paths:
        alone = twins[path.parent, scan_id_of(path).casefold()] == 1
        own[path] = scan_id_of(path) if alone else path.name.replace(".", "_")
    pending = list(paths)
    for above in range(max((len(path.parts) for path in pending), default=0)):
        wanted = {p: "_".join([*p.parts[1:-1][::-1][:above][::-1], own[p]]) for p in pending}
        count = Counter(name.casefold() for name in wanted.values())
        for path, name in wanted.items():
            free = name.casefold() not in taken or path in known
            if count[name.casefold()] == 1 and free:
                names[path] = known.get(path, name)
        taken |= {name.casefold() for name in names.values()}
        pending = [path for path in pending if path not in names]
    for path in pending:  # a_b/c and a/b_c, with nothing above them
        number = next(n for n in range(2, 10**9) if f"{own[path]}_{n}".casefold() not in taken)
        names[path] = known.get(path, f"{own[path]}_{number}")
        taken.add(names[path].casefold())
    return names
