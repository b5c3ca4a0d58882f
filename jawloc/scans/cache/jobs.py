"""What the cache has to do: which files may be used as they are, and which scans can't be used."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jawloc.errors import InputError, reason_of
from jawloc.geometry import Shape
from jawloc.scans.cache.files import CacheRecord, is_cached_scan, is_current, read_cached
from jawloc.scans.cache.layout import CacheConfig
from jawloc.scans.dicom import open_labelled_dicom
from jawloc.scans.downsample import TargetTooLargeError, check_target
from jawloc.scans.labels import (
    point_labels,
    refuse_two_points,
    refuse_without_objects,
    search_labels,
)
from jawloc.scans.messages import names_shown
from jawloc.scans.padding import without_padding


@dataclass(frozen=True, eq=False)
class Job:
    """One scan that should have an up-to-date cached file."""

    source: Path
    cached: Path
    lock: Path
    config: CacheConfig
    folder: Path
    anew: bool = False  # even if the cached file seems to be right

    @property
    def shape(self) -> Shape:
        """Return the downsampled size (z, y, x)."""
        return self.config.shape_zyx


def usable_record(job: Job) -> CacheRecord | None:
    """Return the record of a cached file that may be used as it is, else None."""
    if job.anew:
        return None
    try:
        stat = job.source.stat()
        record = read_cached(job.cached).record
    except (InputError, OSError):  # absent, damaged or foreign: all are made again
        return None
    return record if is_current(record, job.cached, job.source, stat, job.shape) else None


def labels_found(job: Job, record: CacheRecord | None) -> frozenset[int | str] | InputError:
    """Return labels, enough to tell which objects a scan shows, or why it can't be used.

    They are read from its cached file, or else from its header and mask.
    """
    found: set[int | str]
    try:
        if record is not None:
            labels = record.labels
            found = {label.value for label in labels}
        else:
            scan = without_padding(open_labelled_dicom(job.source))
            _refuse_copy(job.source)
            check_target(scan, job.shape)
            labels = point_labels(scan.points)
            found = {*search_labels(scan, job.config.objects.values())}
            found.update(label.value for label in labels)
        refuse_two_points(labels, job.config.objects, job.source.name)
        refuse_without_objects(found, job.config.objects, job.source.name)
    except InputError as error:
        return error
    except OSError as error:
        return InputError(reason_of(error, job.source.name))
    return frozenset(found)


def _refuse_copy(source: Path) -> None:
    """Raise InputError for a cached file, which isn't a scan, though it has all that one needs."""
    if is_cached_scan(source):
        raise InputError(
            f"{source.name}: a scan must be at full size; {source} is a downsampled copy of "
            f"jawloc's cache"
        )


def labels_of_pair(pair: tuple[Job, CacheRecord | None]) -> frozenset[int | str] | InputError:
    """Return `labels_found` of a job and its record."""
    return labels_found(*pair)


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


def complaints_of(errors: Sequence[InputError], jobs: Sequence[Job]) -> list[str]:
    """Return the errors' sentences, the first of a small scan with the size that would fit all."""
    small = [error for error in errors if isinstance(error, TargetTooLargeError)]
    if not small:
        return [str(error) for error in errors]
    size = largest_size([job.source for job in jobs], jobs[0].shape)
    name = "x".join(map(str, size))
    about_small = [
        f"{small[0]}; {name} fits all scans: set downsampled_dicom_size to {list(size)}, or to auto"
    ]
    if likewise := [str(error).partition(": ")[0] for error in small[1:]]:
        about_small.append(f"too small likewise: {names_shown(likewise)}")
    complaints = list[str]()
    for error in errors:
        if error is small[0]:
            complaints += about_small
        elif error not in small:
            complaints.append(str(error))
    return complaints
