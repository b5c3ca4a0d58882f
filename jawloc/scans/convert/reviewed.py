"""A review.csv as a folder of labelled DICOMs: made once, and anew where the review has changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jawloc.errors import InputError, reason_of
from jawloc.scans.atomic import is_file_name, make_writable, refuse_links
from jawloc.scans.convert.abandoned import remove_abandoned
from jawloc.scans.convert.positioned import (
    PositionedScan,
    find_complaints,
    is_made,
    write_positioned,
)
from jawloc.scans.locks import locked
from jawloc.scans.manifest import forget_files, record_file, start_manifest, written_files
from jawloc.scans.messages import tell
from jawloc.scans.points import GivenPoint, parse_object
from jawloc.scans.points.cells import read_cells
from jawloc.scans.points.review import (
    REVIEW,
    REVIEW_COLUMNS,
    WITH_POSITION,
    Review,
    read_review,
    refuse_shared_files,
    scan_file,
)
from jawloc.scans.progress import Progress
from jawloc.scans.text_input import real_path

REVIEWED = "reviewed_scans"
_LOCK = ".lock"


def is_review(path: Path) -> bool:
    """Return whether a file is a table with the columns of a review."""
    try:
        header, _ = read_cells(path, REVIEW_COLUMNS, errors="surrogateescape")
    except (InputError, OSError):
        return False
    return set(REVIEW_COLUMNS) <= set(header)


def reviewed_scans(review: Path) -> Path:
    """Bring the labelled DICOMs of a review up to date, and return their folder, beside it.

    Each has the positions of its scan that were accepted or moved. One whose scan and positions are
    as they were stays; one of a scan that has no position any more is removed.

    Raises
    ------
    InputError
        If the file isn't a review, or has no position; with a line for each scan that can't be
        read or that a position lies outside of; if another program's file has the name of a
        labelled DICOM, or the disk has no room.
    """
    wanted = {f"{scan.scan_id}.dcm": scan for scan in _positions(review)}
    folder = review.parent / folder_name(review)
    refuse_links("dicom_dirs", folder)
    make_writable(folder, f"{review}: {folder} must be a folder that can be written to")
    with locked(folder / _LOCK):  # of several processes of one training, one makes them
        start_manifest(folder)
        remove_abandoned(folder)
        _remove_others(folder, wanted)
        keys = {name: scan.key for name, scan in wanted.items()}
        old = [name for name in wanted if not is_made(folder / name, keys[name])]
        for name in old:
            _refuse_foreign(folder / name, review)
        complaints = find_complaints({folder / name: wanted[name] for name in old}, folder)
        for name in [] if complaints else Progress(old, desc="reviewed scans", unit="scan"):
            record_file(folder / name)
            try:
                write_positioned(folder / name, wanted[name], keys[name])
            except InputError as error:
                complaints.append((wanted[name], error))
    if complaints:
        raise InputError(
            "\n".join(
                f"{review}: {scan.scan_id!r} needs its scan to be read; "
                f"{reason_of(error, scan.image.name)}"
                for scan, error in complaints
            )
        )
    return folder


def folder_name(review: Path) -> str:
    """Return the name of a review's folder; reviews in one folder have one each."""
    return REVIEWED if review.name == REVIEW else f"{REVIEWED}_{review.stem}"


def _positions(review: Path) -> list[PositionedScan]:
    """Return the scans of a review that have a position."""
    found: dict[str, list[Review]] = {}
    accepted = 0
    for row in read_review(review):
        if row.verdict in WITH_POSITION:
            found.setdefault(row.scan, []).append(row)
            accepted += row.verdict == "accepted"
    if not found:
        raise InputError(
            f"{review}: a review in dicom_dirs must have a position that was accepted or moved; "
            f"there is none"
        )
    for scan, rows in found.items():
        if not is_file_name(f"{scan}.dcm"):
            raise InputError(f"{review}: scan must be a name without folders; it is {scan!r}")
        paths = {row.path for row in rows}
        if len({real_path(scan_file(row, review)) for row in rows}) > 1 or "" in paths:
            raise InputError(
                f"{review}: path must name the file of {scan}, in all its rows alike; it is "
                f"{' and '.join(repr(path) for path in sorted(paths))}"
            )
    refuse_shared_files(
        (scan, scan_file(rows[0], review), str(review)) for scan, rows in found.items()
    )
    if accepted:
        as_found = "is as a model found it" if accepted == 1 else "are as a model found them"
        tell(
            f"{review.name}: {accepted} of its positions {as_found} (accepted); "
            f"to validate or test with such a position flatters that model"
        )
    return [
        PositionedScan(scan, scan_file(rows[0], review), tuple(_points(review, rows)))
        for scan, rows in found.items()
    ]


def _points(review: Path, rows: Sequence[Review]) -> Iterator[GivenPoint]:
    for row in rows:
        source = f"{review.name}, {row.object!r} of {row.scan!r}"
        if row.position_voxels_zyx is not None:
            key = parse_object(row.object or "", source)
            yield GivenPoint(row.scan, key, row.position_voxels_zyx, "voxels", source)


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
