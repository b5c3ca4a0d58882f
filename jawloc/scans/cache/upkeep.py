"""Maintenance of the cache: checking every file of it against its source, and removing it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from tqdm import tqdm

from jawloc.errors import InputError
from jawloc.scans.atomic import target_of_temporary
from jawloc.scans.cache import files
from jawloc.scans.cache.files import is_own_file, read_cached, source_of
from jawloc.scans.cache.layout import CacheConfig, cache_folder, is_lock, lock_path, may_be_cached
from jawloc.scans.cache.workers import worker_threads
from jawloc.scans.dicom import open_labelled_dicom
from jawloc.scans.downsample import hash_content


@dataclass(frozen=True)
class CacheStatus:
    """The result of `verify_cache` for one cached file."""

    path: Path
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
    visible = [p for p in _files(cache_folder(config, base)) if not p.name.startswith(".")]
    paths = [path for path in visible if path.suffix == ".dcm"]
    hidden = None if progress and paths else True  # None: only on a terminal
    with worker_threads(config.n_workers, len(paths)) as pool:
        checks = pool.map(_verify, paths)
        bar = tqdm(checks, desc="verifying", total=len(paths), unit="scan", disable=hidden)
        return list(bar)


def _verify(path: Path) -> CacheStatus:
    try:
        record = read_cached(path).record
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
        if hash_content(open_labelled_dicom(source)) != record.content_hash:
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
        with contextlib.suppress(OSError, Timeout), FileLock(path, timeout=0):
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
        lock = lock_path(target or path, folder)
        lock.parent.mkdir(exist_ok=True)
        with FileLock(lock, timeout=0):
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
