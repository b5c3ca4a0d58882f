"""A review.csv as a folder of labelled DICOMs: made once, and anew where the review has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.atomic import is_file_name, make_writable, refuse_links
from jawloc.scans.convert.points import write_pointed
from jawloc.scans.dicom import read_metadata
from jawloc.scans.locks import locked
from jawloc.scans.manifest import forget_files, record_file, start_manifest, written_files
from jawloc.scans.points import GivenPoint, parse_object
from jawloc.scans.points.cells import read_cells
from jawloc.scans.points.review import REVIEW_COLUMNS, WITH_POSITION, Review, read_review
from jawloc.scans.progress import Progress
from jawloc.scans.reading import open_scan

REVIEWED = "reviewed_scans"
_KEY, _LOCK = "review", ".lock"


def is_review(path: Path) -> bool:
    """Return whether a file is a table with the columns of a review."""
    try:
        return set(REVIEW_COLUMNS) <= set(read_cells(path, errors="surrogateescape")[0])
    except (InputError, OSError):
        return False


def reviewed_scans(review: Path) -> Path:
    """Bring the labelled DICOMs of a review up to date, and return their folder, beside it.

    Each has the positions of its scan that were accepted or moved. One whose scan and positions are
    as they were stays; one of a scan that has no position any more is removed.

    Raises
    ------
    InputError
        If the file isn't a review, has no position, names no scan that can be read, a position
        lies outside its scan, or another program's file has the name of a labelled DICOM.
    """
    of_scans = _positions(review)
    folder = review.parent / REVIEWED
    refuse_links("dicom_dirs", folder)
    make_writable(folder, f"{review}: {folder} must be a folder that can be written to")
    with locked(folder / _LOCK):  # of several processes of one training, one makes them
        start_manifest(folder)
        wanted = {f"{scan}.dcm": rows for scan, rows in of_scans.items()}
        _remove_others(folder, wanted)
        keys = {name: _key(review, rows) for name, rows in wanted.items()}
        old = [name for name in wanted if not _is_made(folder / name, keys[name])]
        for name in Progress(old, desc="reviewed scans", unit="scan"):
            _refuse_foreign(folder / name, review)
            record_file(folder / name)
            _write(folder / name, review, wanted[name], keys[name])
    return folder


def _positions(review: Path) -> dict[str, list[Review]]:
    """Return the reviews that have a position, by the scan's name."""
    found: dict[str, list[Review]] = {}
    for row in read_review(review):
        if row.verdict in WITH_POSITION:
            found.setdefault(row.scan, []).append(row)
    if not found:
        raise InputError(
            f"{review}: a review in dicom_dirs must have a position that was accepted or moved; "
            f"there is none"
        )
    for scan, rows in found.items():
        if not is_file_name(f"{scan}.dcm"):
            raise InputError(f"{review}: scan must be a name without folders; it is {scan!r}")
        paths = {row.path for row in rows}
        if len(paths) > 1 or "" in paths:
            raise InputError(
                f"{review}: path must name the file of {scan}, in all its rows alike; it is "
                f"{' and '.join(repr(path) for path in sorted(paths))}"
            )
    return found


def _image(review: Path, rows: Sequence[Review]) -> Path:
    return review.parent / rows[0].path


def _key(review: Path, rows: Sequence[Review]) -> str:
    """Return a text that changes with a scan's file and its positions."""
    image = _image(review, rows)
    states = []
    with suppress(OSError):  # opening it says why
        files = sorted(image.iterdir()) if image.is_dir() else [image]
        for file in files:
            status = file.stat()
            states.append((file.name, status.st_size, status.st_mtime_ns))
    positions = [(row.object, row.position_voxels_zyx) for row in rows]
    return hashlib.sha256(repr((rows[0].path, states, positions)).encode()).hexdigest()[:16]


def _is_made(path: Path, key: str) -> bool:
    try:
        return (read_metadata(path) or {}).get(_KEY) == key
    except (InputError, OSError):
        return False


def _remove_others(folder: Path, wanted: Mapping[str, object]) -> None:
    gone = {name for name in written_files(folder) or () if name not in wanted}
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    forget_files(folder, gone)


def _refuse_foreign(path: Path, review: Path) -> None:
    if path.exists() and path.name not in (written_files(path.parent) or ()):
        raise InputError(
            f"{review}: jawloc didn't write {path}, and would overwrite it; move it away first"
        )


def _write(path: Path, review: Path, rows: Sequence[Review], key: str) -> None:
    given = []
    for row in rows:
        source = f"{review.name}, {row.object!r} of {row.scan!r}"
        if row.position_voxels_zyx is not None:
            at, key_of_object = row.position_voxels_zyx, parse_object(row.object or "", source)
            given.append(GivenPoint(row.scan, key_of_object, at, "voxels", source))
    try:
        write_pointed(path, open_scan(_image(review, rows)), given, metadata={_KEY: key})
    except InputError as error:
        raise InputError(f"{review}: {rows[0].scan!r} needs its scan to be read; {error}") from None
