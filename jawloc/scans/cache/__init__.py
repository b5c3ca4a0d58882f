"""The cache: every full-size labelled DICOM downsampled once, then reused by every run and trial.

`build_cache` brings the cached files of some scans up to date, `open_example` opens one. A
cached file is used only while its source's size and time, the target size, the algorithm and its
own checksum are right; otherwise it is made again. Writing is atomic and guarded by one lock a
file, so several processes can build one cache at once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import Timeout
from tqdm import tqdm

from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.scans.atomic import make_writable, refuse_links
from jawloc.scans.cache.examples import Example as Example
from jawloc.scans.cache.examples import ExampleFile as ExampleFile
from jawloc.scans.cache.examples import open_example as open_example
from jawloc.scans.cache.files import CacheRecord, is_current, read_cached, write_cached
from jawloc.scans.cache.layout import CacheConfig as CacheConfig
from jawloc.scans.cache.layout import absolute, cache_folder, cached_paths, leftovers, lock_path
from jawloc.scans.cache.workers import locked, worker_threads
from jawloc.scans.dicom import open_labelled_dicom
from jawloc.scans.downsample import TargetTooLargeError, check_target, downsample
from jawloc.scans.labels import (
    objects_shown,
    point_labels,
    refuse_two_points,
    refuse_without_objects,
    search_labels,
)


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
) -> CacheReport:
    """Bring the cached files of some full-size labelled DICOMs up to date.

    Parameters
    ----------
    base : the folder that relative paths are relative to, those of `scans` too
    progress : whether to show a bar, on a terminal
    check : is called with the names of the objects that each scan shows, and may raise an
        InputError, before any scan is downsampled

    Raises
    ------
    InputError
        With one line for each scan that can't be used: unreadable, smaller than the target (with
        the largest one that fits all), an empty mask, no label of any object, two points of one.
        Errors in headers, labels and cached files are raised before any scan is downsampled and
        before anything is written.
    """
    cached, folder = cached_paths(scans, config, base), cache_folder(config, base)
    jobs = [
        _Job(absolute(scan, base), path, lock_path(path, folder), config, folder)
        for scan, path in zip(scans, cached, strict=True)
    ]
    with worker_threads(config.n_workers, len(jobs)) as pool:
        records = list(pool.map(_usable_record, jobs))
        found = list(pool.map(_labels_found, jobs, records))
        _refuse(_complaints([e for e in found if isinstance(e, InputError)], jobs))
        check([objects_shown(v, config.objects) for v in found if isinstance(v, frozenset)])
        to_do = [job for job, record in zip(jobs, records, strict=True) if record is None]
        made = _build_all(pool, to_do, folder, progress) if to_do else Counter()
    written = made["built"] + made["refreshed"]
    reused = len(jobs) - written
    return CacheReport(tuple(cached), made["built"], made["refreshed"], reused, written)


@dataclass(frozen=True, eq=False)
class _Job:
    """One scan that should have an up-to-date cached file."""

    source: Path
    cached: Path
    lock: Path
    config: CacheConfig
    folder: Path

    @property
    def shape(self) -> Shape:
        return self.config.shape_zyx


class _Stopped(Exception):
    """Ends a worker after another one failed or the user pressed Ctrl-C."""


def _usable_record(job: _Job) -> CacheRecord | None:
    """Return the record of a cached file that may be used as it is, else None."""
    try:
        stat = job.source.stat()
        record = read_cached(job.cached).record
    except (InputError, OSError):  # absent, damaged or foreign: all are made again
        return None
    return record if is_current(record, job.cached, job.source, stat, job.shape) else None


def _labels_found(job: _Job, record: CacheRecord | None) -> frozenset[int | str] | InputError:
    """Return labels, enough to tell which objects a scan shows, or why it can't be used.

    They are read from its cached file, or else from its header and mask.
    """
    found: set[int | str]
    try:
        if record is not None:
            labels = record.labels
            found = {label.value for label in labels}
        else:
            scan = open_labelled_dicom(job.source)
            check_target(scan, job.shape)
            labels = point_labels(scan.points)
            found = {*search_labels(scan, job.config.objects.values())}
            found.update(label.value for label in labels)
        refuse_two_points(labels, job.config.objects, job.source.name)
        refuse_without_objects(found, job.config.objects, job.source.name)
    except InputError as error:
        return error
    return frozenset(found)


def largest_size(scans: Sequence[Path], wanted: Shape) -> Shape:
    """Return the largest downsampled size, no larger than another, that fits all scans.

    Reads headers only; scans that can't be opened are left out, as building the cache refuses them.
    """
    shapes = [wanted]
    for path in scans:
        with suppress(InputError, OSError):
            shapes.append(open_labelled_dicom(path).grid.shape_zyx)
    z, y, x = (min(sizes) for sizes in zip(*shapes, strict=True))
    return z, y, x


def _complaints(errors: Sequence[InputError], jobs: Sequence[_Job]) -> list[str]:
    """Return the errors' sentences, the first of a small scan with the size that would fit all."""
    if not any(isinstance(error, TargetTooLargeError) for error in errors):
        return [str(error) for error in errors]
    size = largest_size([job.source for job in jobs], jobs[0].shape)
    name = "x".join(map(str, size))
    hint = f"{name} fits all scans: set downsampled_dicom_size to {list(size)}, or to auto"
    complaints, told = list[str](), False
    for error in errors:
        sentence = str(error)
        if isinstance(error, TargetTooLargeError):
            name = sentence.partition(": ")[0]
            sentence = f"{name}: too small likewise" if told else f"{sentence}; {hint}"
            told = True
        complaints.append(sentence)
    return complaints


def _refuse(complaints: Sequence[str]) -> None:
    if complaints:
        raise InputError("\n".join(complaints))


def _build_all(
    pool: ThreadPoolExecutor, jobs: Sequence[_Job], folder: Path, progress: bool
) -> Counter[str]:
    """Make the missing files; scans that can't be used are reported after the others are done."""
    make_writable(folder, f"{folder}: the cache's folder must be one that can be written to")
    places = {place for job in jobs for path in (job.cached, job.lock) for place in path.parents}
    refuse_links("cache_dir", *sorted(p for p in places if folder in p.parents))
    sizes = {job: job.source.stat().st_size for job in jobs}
    stop, drawing = threading.Event(), threading.Lock()
    bar = tqdm(
        total=sum(sizes.values()),
        desc=f"downsampling {len(jobs)} scan{'s' if len(jobs) > 1 else ''}",
        unit="B",
        unit_scale=True,
        disable=None if progress else True,  # None: only on a terminal
    )

    def advance(job: _Job, share: float) -> None:
        if stop.is_set():
            raise _Stopped
        with drawing:
            bar.update(round(share * sizes[job]))

    with bar:
        try:
            return _run_all(pool, jobs, advance)
        except BaseException:
            stop.set()
            raise


def _run_all(
    pool: ThreadPoolExecutor, jobs: Sequence[_Job], advance: Callable[[_Job, float], None]
) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    complaints: list[str] = []
    # Files that another process is making now come last: it may finish them meanwhile.
    for patience in (0.0, float("inf")):
        work = partial(_bring_up_to_date, advance=advance, patience_seconds=patience)
        futures = {pool.submit(work, job): job for job in jobs}
        jobs = []
        for future in as_completed(futures):
            try:
                outcomes[future.result()] += 1
            except Timeout:
                jobs.append(futures[future])
            except InputError as error:
                complaints.append(str(error))
    _refuse(complaints)
    return outcomes


def _bring_up_to_date(
    job: _Job, advance: Callable[[_Job, float], None], patience_seconds: float
) -> str:
    """Make one cached file unless another process just has; return what was done."""
    with locked(job.lock, patience_seconds, lambda: advance(job, 0.0)):
        if _usable_record(job) is not None:
            advance(job, 1.0)
            return "reused"
        return _make(job, advance)


def _make(job: _Job, advance: Callable[[_Job, float], None]) -> str:
    for leftover in leftovers(job.cached):
        leftover.unlink(missing_ok=True)
    try:
        previous_key = read_cached(job.cached).record.key
    except (InputError, OSError):
        previous_key = None
    stat = job.source.stat()  # before reading: a change during it shows the next time
    scan = open_labelled_dicom(job.source)
    slices = scan.grid.shape_zyx[0]
    # Averaging costs hardly more than the hash alone, so a source that was only touched is read
    # once, as is one that changed.
    result = downsample(scan, job.shape, on_slab=lambda done: advance(job, done / slices))
    values = [label.value for label in result.labels]
    key = write_cached(job.cached, job.folder, scan, stat, result) if values else ""
    refuse_without_objects(values, job.config.objects, job.source.name)
    return "refreshed" if key == previous_key else "built"
