"""Maintenance of the cache: checking every file against its source, repairing, removing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import Timeout

from jawloc.errors import InputError
from jawloc.scans.atomic import target_of_temporary
from jawloc.scans.cache import build_cache, files
from jawloc.scans.cache.files import is_own_file, read_cached, source_of
from jawloc.scans.cache.layout import (
    CacheConfig,
    cache_folder,
    cached_paths,
    is_lock,
    lock_path,
    may_be_cached,
    relative,
    shape_of,
)
from jawloc.scans.cache.workers import worker_threads
from jawloc.scans.dicom import open_labelled_dicom
from jawloc.scans.dicom.writing import has_own_checksum
from jawloc.scans.downsample import hash_content
from jawloc.scans.locks import locked
from jawloc.scans.padding import without_padding
from jawloc.scans.progress import Progress


@dataclass(frozen=True)
class CacheStatus:
    """The result of `verify_cache` for one cached file."""

    path: Path
    # damaged: a bit of it changed, or it is the copy of another file of the cache;
    # stale: the source has other content now, or the algorithm changed
    status: Literal["ok", "stale", "damaged", "source missing"]
    source: Path | None = None  # the full-size file; None where the cached file is damaged
    detail: str = ""  # one sentence about the fault


@dataclass(frozen=True)
class Cleared:
    """The result of `clear_cache`."""

    files: int  # number of cached files removed
    size_bytes: int  # of them together
    left: tuple[Path, ...]  # files that jawloc can't prove to have written, or that are in use


def verify_cache(config: CacheConfig, *, base: Path, progress: bool = True) -> list[CacheStatus]:
    """Check every file in the cache, sorted by path, and hash its full-size source anew."""
    folder = cache_folder(config, base)
    visible = [path for path in _files(folder) if not path.name.startswith(".")]
    paths = [path for path in visible if path.suffix == ".dcm"]
    with worker_threads(config.n_workers, len(paths)) as pool:
        checks = pool.map(partial(_verify, folder=folder), paths)
        shown = progress and bool(paths)
        return list(Progress(checks, desc="verifying", total=len(paths), unit="scan", shown=shown))


def repair_cache(
    config: CacheConfig,
    statuses: Sequence[CacheStatus],
    scans: Sequence[Path],
    *,
    base: Path,
    progress: bool = True,
) -> list[CacheStatus]:
    """Make anew what `verify_cache` found damaged or stale; return what each file is then.

    Only files of the full-size `scans` can be made, each in the size of its folder. The others stay
    as they are, with their status.
    """
    folder = cache_folder(config, base)
    sizes = {shape_of(status.path, folder) for status in statuses if status.status != "ok"}
    sources: dict[Path, tuple[Path, CacheConfig]] = {}
    for size in filter(None, sizes):
        of_size = replace(config, downsampled_dicom_size=size)
        places = cached_paths(scans, of_size, base)
        sources |= {p: (scan, of_size) for p, scan in zip(places, scans, strict=True)}

    def repaired(status: CacheStatus) -> CacheStatus:
        if status.status == "ok" or status.path not in sources:
            return status
        scan, of_size = sources[status.path]
        try:
            build_cache([scan], of_size, base=base, progress=False, anew=True)
        except InputError as error:  # of the scan; the others can be made all the same
            return replace(status, detail=str(error))
        return _verify(status.path, folder)

    shown = progress and bool(sources)
    bar = Progress(statuses, desc="repairing", unit="scan", shown=shown)
    return [repaired(status) for status in bar]


def _verify(path: Path, folder: Path) -> CacheStatus:
    try:
        record = read_cached(path).record
        if record.checked_as_whole and not has_own_checksum(path):
            raise InputError(f"{path.name}: a cached scan must fit its checksum; it is damaged")
        if record.cached_as not in ("", place := relative(path, folder)):
            raise InputError(
                f"{path.name}: a cached scan must lie where it was made; this is a copy of "
                f"{record.cached_as} at {place}"
            )
    except (InputError, OSError) as error:
        return CacheStatus(path, "damaged", detail=str(error))
    source = source_of(path, record)
    if not source.exists():
        detail = f"{path.name}: its source must exist; {source} doesn't"
        return CacheStatus(path, "source missing", source, detail)
    try:
        if record.algorithm_version != files.ALGORITHM_VERSION:
            raise InputError(
                f"{path.name}: the algorithm must be version {files.ALGORITHM_VERSION}; "
                f"the file was made by version {record.algorithm_version}"
            )
        if hash_content(without_padding(open_labelled_dicom(source))) != record.content_hash:
            raise InputError(f"{source.name}: the full-size scan has changed")
    except (InputError, OSError) as error:
        return CacheStatus(path, "stale", source, str(error))
    return CacheStatus(path, "ok", source)


def clear_cache(config: CacheConfig, *, base: Path) -> Cleared:
    """Remove the cached files of every size, and nothing that jawloc did not write there.

    A file is removed only if it carries jawloc's record and is where that record places it, or if
    it is a killed process's temporary file beside such a place; links are neither followed nor
    removed. Folders are removed only where that has emptied them. Locks that another process
    holds stay, and the files that they guard.
    """
    folder = cache_folder(config, base)
    sizes: list[int] = []
    left: list[Path] = []
    emptied: set[Path] = set()
    for path in [path for path in _files(folder) if not is_lock(path, folder)]:
        size = _remove_own(path, folder)
        if size is None:
            left.append(path)
        else:
            sizes.append(size)
            emptied |= {own for own in path.parents if own.is_relative_to(folder)}
    for path in [path for path in _files(folder) if is_lock(path, folder)]:
        # Without a lock that another process holds, a third one would write beside it.
        with contextlib.suppress(OSError, Timeout), locked(path.with_suffix(".lock"), 0.0):
            path.unlink(missing_ok=True)
            emptied |= {path.parent, folder}
    for own in sorted(emptied, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):  # it holds something that stays
            own.rmdir()
    return Cleared(len(sizes), sum(sizes), tuple(left))


def _remove_own(path: Path, folder: Path) -> int | None:
    """Remove a file of the cache that nobody is writing; return its size, or None if it stays."""
    target = target_of_temporary(path)
    try:
        own = is_own_file(path, folder) if target is None else may_be_cached(target, folder)
        if path.is_symlink() or not own:
            return None
        with locked(lock_path(target or path, folder), 0.0):
            size = path.stat().st_size
            path.unlink()
    except (OSError, Timeout):
        return None
    return size


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, sorted, without following links to other folders."""
    for root, below, names in os.walk(folder, followlinks=False):
        below.sort()
        yield from (Path(root, name) for name in sorted(names))
