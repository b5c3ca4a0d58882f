"""Files, folders and lists of them -> scans, each with a unique name."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from jawloc.errors import InputError
from jawloc.scans.dicom.folder import dicom_slices
from jawloc.scans.dicom.header import frames_of
from jawloc.scans.manifest import written_files
from jawloc.scans.messages import names_shown, tell
from jawloc.scans.projections import pictures_left_out, slices_of
from jawloc.scans.scan import scan_ending, scan_id_of
from jawloc.scans.slice_folder import is_slice, picture_slices
from jawloc.scans.text_input import read_text, real_path
from jawloc.scans.tiff import TIFF_ENDINGS

LIST_ENDING = ".txt"
_LONGEST_NAME = 255  # in bytes, on the disks in use
# of a scan, in bytes: its files' names have an object's name, an ending and, while they are
# written, a beginning of their own
_LONGEST_SCAN_NAME = 180


@dataclass(frozen=True)
class ListedScan:
    """A scan that was named; whether it can be read is not known yet."""

    # Names its outputs: its id, with as much of its path before it as makes it unique (upper and
    # lower case count as the same, as they do on some disks). A very long one ends early, in
    # letters that its path decides.
    name: str
    path: Path  # absolute
    series: tuple[str, ...] = ()  # SeriesInstanceUIDs, one of which a folder of DICOM files has
    # Files with the labels that fit its name; None for a scan whose labels are in its own file.
    labels: tuple[Path, ...] | None = None


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
    series: Sequence[str] = (),
) -> list[ListedScan]:
    """List the scans in files, folders and `.txt` lists, each once, in their order.

    A folder is one scan if it holds 2-D TIFFs or a DICOM series; otherwise it stands for all scans
    in it and in the folders below it, without the crops of earlier results there. A list has a path
    a line, relative to the list's folder or else to the current one; `#` begins a comment; it may
    be quoted.

    Parameters
    ----------
    exclude : a folder that is not searched: the one that results are written to
    known : names that are taken, by their paths
    series : SeriesInstanceUIDs, one of which each folder of DICOM files has

    Raises
    ------
    InputError
        A list that is missing, unreadable or empty, or a folder without any scan. A missing scan
        is listed: opening it raises the error.
    """
    paths: dict[Path, Path] = {}  # by their real paths
    for place in named:
        for scan in _scans_of(place, exclude):
            paths.setdefault(real_path(scan), scan.absolute())
    if not paths:
        raise InputError("name at least one scan; received none")
    resolved = {real_path(path): name for path, name in known.items()}
    known = {**known, **{paths[real]: name for real, name in resolved.items() if real in paths}}
    names = _unique_names(list(paths.values()), known)
    names |= {p: _shortened(name, p) for p, name in names.items() if p not in known}
    return [ListedScan(names[path], path, tuple(series)) for path in paths.values()]


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
        lines = read_text(path, "a list of scans").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}: a list of scans must be text (UTF-8); it isn't") from error
    except OSError as error:
        raise InputError(f"{path}: a list of scans must be readable; {error.strerror}") from error
    found = [_listed_path(line.strip(), path.parent) for line in lines]
    paths = [path for path in found if path is not None]
    for name in (part for listed in paths for part in listed.parts):
        if "\0" in name or len(os.fsencode(name)) > _LONGEST_NAME:
            raise InputError(
                f"{path.name}: a list must have a path a line; one is {name[:40]!r}..."
            )
    if not paths:
        raise InputError(f"{path.name}: a list must name at least one scan; it names none")
    return paths


def _listed_path(line: str, folder: Path) -> Path | None:
    """Return the path on a line of a list: the whole line if that exists, else up to a `#`.

    Quotation marks round it, as Windows copies paths, are no part of it.
    """
    texts = [line, re.split(r"(?:^|\s)#", line)[0].strip()]
    texts = [text for given in texts for text in (given, _unquoted(given))]
    for text in texts:
        home = os.path.expanduser(text)  # noqa: PTH111 - "~name" of nobody stays
        for candidate in (folder / home, Path(text)):
            if text and not text.startswith("#") and _exists(candidate):
                return candidate
    return folder / texts[-1] if texts[-1] else None


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1].strip() if quoted else text


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long, a folder that may not be searched
        return False


def _is_folder(path: Path) -> bool:
    return _exists(path) and path.is_dir()


def scans_inside(folder: Path) -> list[Path] | None:
    """Return the folders and the files of a scan's ending in a folder; None if it is one scan.

    Of a folder of projections, the folders with the slices take its place.
    """
    inside = _without_slices(sorted(_visible(folder)), set())
    if inside is None:
        return None
    found = [path for path in inside if path.is_dir() or scan_ending(path)]
    return [scan for path in found for scan in slices_of(path)]


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _expanded(path: Path, exclude: Path | None) -> list[Path]:
    if not _is_folder(path):
        return [path]
    return list(_walk(path, set() if exclude is None else {real_path(exclude)}, stacks=True))


def files_below(folder: Path, exclude: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield the files of a scan's ending below a folder, without hidden ones and those excluded."""
    return _walk(folder, {real_path(place) for place in exclude}, stacks=False)


def _walk(
    folder: Path, visited: set[Path], *, stacks: bool, results: Collection[str] | None = None
) -> Iterator[Path]:
    """Yield scans; with `stacks`, a folder of slices is one. Folders in `visited` are left out.

    `results`: what jawloc wrote into this folder as crops and pictures, which are left out, too;
    None for the folder that was named, in which they are asked for.
    """
    here = real_path(folder)
    if here in visited:  # circles of links end here
        return
    visited.add(here)
    try:
        found = sorted(path for path in _visible(folder) if path.name not in (results or ()))
    except OSError:
        yield folder  # opening it raises the reason why it can't be read
        return
    inside = _without_slices(found, visited) if stacks else found
    if inside is None:
        yield folder
        return
    written = set[str]() if results is None else written_files(folder) or set[str]()
    for path in inside:
        if _is_folder(path):
            own = {name.partition("/")[2] for name in written if name.startswith(f"{path.name}/")}
            yield from _walk(path, visited, stacks=stacks, results=own)
        elif scan_ending(path):
            yield path


def _without_slices(inside: Sequence[Path], visited: Collection[Path]) -> list[Path] | None:
    """Return what is in a folder without single slices; None if these are one scan.

    Folders in `visited` are not looked into.
    """
    files = [path for path in inside if path.is_file()]
    folders = [path for path in inside if _is_folder(path) and real_path(path) not in visited]
    slices = _slices_in(files, folders)
    return None if slices is None else [path for path in inside if path not in slices]


def _slices_in(files: Sequence[Path], folders: Sequence[Path]) -> Collection[Path] | None:
    """Return the single slices among files, which are no scans; None if the files are one scan.

    Whether they are is decided by the first and the last, and by all where those don't show it;
    of pictures, also by the folders beside them.
    """
    pictures = picture_slices(files)
    dicoms = dicom_slices(files)
    volumes = [p for p in files if scan_ending(p) and p not in pictures and p not in dicoms]
    if len(pictures) <= len(volumes):  # previews of these
        pictures = []
    if pictures and (not dicoms or any(p.suffix.lower() in TIFF_ENDINGS for p in pictures)):
        found = {_is_2d(path) for path in (pictures[0], pictures[-1])}
        if False in found or True not in found:
            return ()
        return pictures_left_out(pictures, folders)
    frames = {path: frames_of(path) for path in dicoms[:1] + dicoms[-1:]}
    if set(frames.values()) == {1}:
        return None
    if 1 in frames.values() or None in frames.values():
        frames = {path: frames_of(path) for path in dicoms}
    slices = {path for path, number in frames.items() if number == 1}
    whole = [path for path, number in frames.items() if number is not None and number > 1]
    if not whole:
        return None if slices else ()
    if len(whole) == 1 and (len(slices) > 1 or scan_ending(whole[0]) is None):
        return None
    if slices:
        tell(
            f"{files[0].parent.name}: {names_shown(sorted(path.name for path in slices))} beside "
            "DICOM files of several slices: a single slice is no scan, and is left out"
        )
    return slices


def _is_2d(path: Path) -> bool | None:
    """Return whether a file is a single slice; None if it can't be read."""
    try:
        return is_slice(path)
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


def _shortened(name: str, path: Path) -> str:
    """Return a name that leaves room for the rest of its files' names, and is still its own."""
    if len(os.fsencode(name)) <= _LONGEST_SCAN_NAME:
        return name
    end = f"~{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    while len(os.fsencode(name + end)) > _LONGEST_SCAN_NAME:
        name = name[:-1]
    return name + end
