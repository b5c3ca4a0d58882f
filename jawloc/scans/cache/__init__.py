"""The cache: every full-size labelled DICOM downsampled once, then reused by every run and trial.

`build_cache` brings the cached files of some scans up to date, `open_example` opens one. A
cached file is used only while its source's size and time, the target size, the algorithm and its
own checksum are right; otherwise it is made again. Writing is atomic and guarded by one lock a
file, so several processes can build one cache at once.
"""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import Timeout

from jawloc.errors import InputError, as_size, reason_of
from jawloc.scans.atomic import free_bytes, make_writable, refuse_links, size_of
from jawloc.scans.cache.examples import Example as Example
from jawloc.scans.cache.examples import ExampleFile as ExampleFile
from jawloc.scans.cache.examples import open_example as open_example
from jawloc.scans.cache.files import CacheRecord, read_cached, write_cached
from jawloc.scans.cache.jobs import Job, complaints_of, labels_found, labels_of_pair, usable_record
from jawloc.scans.cache.jobs import largest_size as largest_size
from jawloc.scans.cache.layout import CacheConfig as CacheConfig
from jawloc.scans.cache.layout import absolute, cache_folder, cached_paths, leftovers, lock_path
from jawloc.scans.cache.workers import Elsewhere, worker_threads
from jawloc.scans.dicom import open_labelled_dicom
from jawloc.scans.downsample import Downsampled, downsample
from jawloc.scans.labels import objects_shown, refuse_without_objects
from jawloc.scans.locks import locked
from jawloc.scans.padding import without_padding
from jawloc.scans.progress import Progress
from jawloc.scans.scan import ScanFile

_CHANGING = ("st_size", "st_mtime_ns", "st_ino")  # when a file is written to or replaced
_CACHED_BYTES_A_VOXEL = 3  # 16 bits of image and 8 of mask


@dataclass(frozen=True)
class CacheReport:
    """The result of `build_cache`."""

    cached: tuple[Path, ...]  # the cached files, in the order of the scans
    built: int  # files made
    refreshed: int  # files made anew whose source was touched but not changed
    reused: int  # files used as they were
    full_size_scans_read: int


def build_cache(
    scans: Sequence[Path],
    config: CacheConfig,
    *,
    base: Path,
    progress: bool = True,
    check: Callable[[Sequence[frozenset[str]]], None] = lambda _: None,
    anew: bool = False,
    elsewhere: Elsewhere | None = None,
) -> CacheReport:
    """Bring the cached files of some full-size labelled DICOMs up to date.

    Parameters
    ----------
    base : the folder that relative paths are relative to, those of `scans` too
    progress : whether to show a bar, on a terminal
    check : is called with the names of the objects that each scan shows, and may raise an
        InputError, before any scan is downsampled
    anew : make every file again, also those that seem to be right
    elsewhere : works on the scans in other processes; None: threads of this one do

    Raises
    ------
    InputError
        With one line for each scan that can't be used: unreadable, smaller than the target (with
        the largest one that fits all), an empty mask, no label of any object, two points of one.
        Errors in headers, labels and cached files are raised before any scan is downsampled and
        before anything is written, and so is a lack of room on the cache's disk.
    DiskFullError
        If the disk is full nevertheless; names the folder and the bytes needed.
    """
    cached, folder = cached_paths(scans, config, base), cache_folder(config, base)
    jobs = [
        Job(absolute(scan, base), path, lock_path(path, folder), config, folder, anew)
        for scan, path in zip(scans, cached, strict=True)
    ]
    with worker_threads(config.n_workers, len(jobs)) as pool:
        how: dict[str, Any] = {"total": len(jobs), "unit": "scan", "shown": progress, "brief": True}
        records = list(Progress(pool.map(usable_record, jobs), desc="checking the cache", **how))
        looked_at = _labels_of_all(pool, jobs, records, elsewhere)
        found = list(Progress(looked_at, desc="checking labels", **how))
        _refuse(complaints_of([e for e in found if isinstance(e, InputError)], jobs))
        check([objects_shown(v, config.objects) for v in found if isinstance(v, frozenset)])
        to_do = [job for job, record in zip(jobs, records, strict=True) if record is None]
        made = _build_all(pool, to_do, folder, progress, elsewhere) if to_do else Counter()
    written = made["built"] + made["refreshed"]
    reused = len(jobs) - written
    return CacheReport(tuple(cached), made["built"], made["refreshed"], reused, written)


# What was done with a file, or why nothing could be; None where another process is making it.
Outcome = str | InputError | None
_Run = Callable[[Sequence[Job], float], Iterator[tuple[Job, Outcome]]]


class _Stopped(Exception):
    """Ends a worker after another one failed or the user pressed Ctrl-C."""


def _refuse(complaints: Sequence[str]) -> None:
    if complaints:
        raise InputError("\n".join(complaints))


def _labels_of_all(
    pool: ThreadPoolExecutor,
    jobs: Sequence[Job],
    records: Sequence[CacheRecord | None],
    elsewhere: Elsewhere | None,
) -> Iterator[frozenset[int | str] | InputError]:
    """Return what `labels_found` says of each scan, in their order."""
    if elsewhere is None:
        return pool.map(labels_found, jobs, records)
    names, pairs = [job.source.name for job in jobs], list(zip(jobs, records, strict=True))
    return _in_order(elsewhere(labels_of_pair, pairs, names))


def _in_order(results: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    early: dict[int, Any] = {}
    count = 0
    for number, result in results:
        early[number] = result
        while count in early:
            yield early.pop(count)
            count += 1


def _build_all(
    pool: ThreadPoolExecutor,
    jobs: Sequence[Job],
    folder: Path,
    progress: bool,
    elsewhere: Elsewhere | None,
) -> Counter[str]:
    """Make the missing files; scans that can't be used are reported after the others are done."""
    _refuse_full_disk(jobs, folder)
    make_writable(folder, f"{folder}: the cache's folder must be one that can be written to")
    places = {place for job in jobs for path in (job.cached, job.lock) for place in path.parents}
    refuse_links("cache_dir", *sorted(p for p in places if folder in p.parents))
    sizes = {job: size_of(job.source) for job in jobs}  # opening a missing one names it
    stop, drawing = threading.Event(), threading.Lock()
    bar = Progress(
        total=sum(sizes.values()),
        desc=f"downsampling {len(jobs)} scan{'s' if len(jobs) > 1 else ''}",
        unit="B",
        unit_scale=True,
        shown=progress,
    )

    def advance(job: Job, share: float) -> None:
        if stop.is_set():
            raise _Stopped
        with drawing:
            bar.update(round(share * sizes[job]))

    with bar:
        try:
            if elsewhere is None:
                return _run_all(jobs, partial(_in_threads, pool, advance))
            return _run_all(jobs, partial(_in_processes, elsewhere, advance))
        except BaseException:
            stop.set()
            raise


def _refuse_full_disk(jobs: Sequence[Job], folder: Path) -> None:
    """Raise InputError if the files to be made don't fit on the disk."""
    needed = sum(math.prod(job.shape) for job in jobs) * _CACHED_BYTES_A_VOXEL
    if (free := free_bytes(folder)) < needed:
        raise InputError(
            f"{folder}: the cache needs {as_size(needed)} for {len(jobs)} downsampled scans; its "
            f"disk has {as_size(free)} left"
        )


def _run_all(jobs: Sequence[Job], run: _Run) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    complaints: list[str] = []
    # Files that another process is making now come last: it may finish them meanwhile.
    for patience in (0.0, float("inf")):
        busy: list[Job] = []
        for job, outcome in run(jobs, patience) if jobs else ():
            if outcome is None:
                busy.append(job)
            elif isinstance(outcome, InputError):
                complaints.append(str(outcome))
            else:
                outcomes[outcome] += 1
        jobs = busy
    _refuse(complaints)
    return outcomes


def _in_threads(
    pool: ThreadPoolExecutor,
    advance: Callable[[Job, float], None],
    jobs: Sequence[Job],
    patience: float,
) -> Iterator[tuple[Job, Outcome]]:
    futures = {pool.submit(_outcome, job, patience, advance): job for job in jobs}
    for future in as_completed(futures):
        yield futures[future], future.result()


def _in_processes(
    elsewhere: Elsewhere,
    advance: Callable[[Job, float], None],
    jobs: Sequence[Job],
    patience: float,
) -> Iterator[tuple[Job, Outcome]]:
    names = [job.source.name for job in jobs]
    for number, outcome in elsewhere(partial(_outcome, patience=patience), jobs, names):
        if outcome is not None:
            advance(jobs[number], 1.0)
        yield jobs[number], outcome


def _outcome(
    job: Job, patience: float, advance: Callable[[Job, float], None] = lambda *_: None
) -> Outcome:
    try:
        return _bring_up_to_date(job, advance, patience)
    except Timeout:
        return None
    except InputError as error:
        return error


def _bring_up_to_date(
    job: Job, advance: Callable[[Job, float], None], patience_seconds: float
) -> str:
    """Make one cached file unless another process just has; return what was done."""
    with locked(job.lock, patience_seconds, lambda: advance(job, 0.0)):
        if usable_record(job) is not None:
            advance(job, 1.0)
            return "reused"
        return _make(job, advance)


def _make(job: Job, advance: Callable[[Job, float], None]) -> str:
    for leftover in leftovers(job.cached):
        leftover.unlink(missing_ok=True)
    try:
        previous_key = read_cached(job.cached).record.key
    except (InputError, OSError):
        previous_key = None
    scan, stat, result = _read_source(job, advance)
    values = [label.value for label in result.labels]
    key = write_cached(job.cached, job.folder, scan, stat, result) if values else ""
    refuse_without_objects(values, job.config.objects, job.source.name)
    return "refreshed" if key == previous_key else "built"


def _read_source(
    job: Job, advance: Callable[[Job, float], None]
) -> tuple[ScanFile, os.stat_result, Downsampled]:
    """Downsample a scan; InputError if it can't be read, or is being written meanwhile."""
    try:
        before = job.source.stat()
        scan = without_padding(open_labelled_dicom(job.source))
        slices = scan.grid.shape_zyx[0]
        # Averaging costs hardly more than the hash alone, so a source that was only touched is read
        # once, as is one that changed.
        result = downsample(scan, job.shape, on_slab=lambda done: advance(job, done / slices))
        after = job.source.stat()
    except OSError as error:
        raise InputError(reason_of(error, job.source.name)) from error
    if any(getattr(before, name) != getattr(after, name) for name in _CHANGING):
        raise InputError(
            f"{job.source.name}: a scan must not change while it is read; once it is complete, the "
            f"same command goes on"
        )
    return scan, after, result
