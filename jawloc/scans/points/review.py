"""What people decided about located positions: review.csv, one row a scan and object.

The cells of a position are empty where there is none. A position is in voxels of the full-size
scan; the first voxel's centre is 0.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Literal, get_args

from jawloc.errors import InputError
from jawloc.geometry import Triple
from jawloc.scans.atomic import atomic_path
from jawloc.scans.points import parse_position
from jawloc.scans.points.cells import Row, as_cell, read_cells, text_of_cell
from jawloc.scans.text_input import real_path

REVIEW = "review.csv"
REVIEW_COLUMNS = ("scan", "object", "verdict", "z", "y", "x", "reviewer", "time", "model", "path")
# the position is right; it was corrected; the scan doesn't show the object; nobody can tell
Verdict = Literal["accepted", "moved", "absent", "skipped"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
WITH_POSITION: tuple[Verdict, ...] = ("accepted", "moved")
_DECIMALS = 6  # of a voxel, as in locations.csv


@dataclass(frozen=True)
class Review:
    """What a person decided about one object of one scan."""

    scan: str  # its name in locations.csv
    object: str | None  # None: of a scan that could not be located
    verdict: Verdict
    position_voxels_zyx: Triple | None  # found where accepted, corrected where moved, else None
    reviewer: str
    time: str  # ISO 8601 in UTC, to the second
    model: str  # as `jawloc locate` was given it
    path: str  # the scan's file, as in locations.csv


def time_of_review(now: datetime | None = None) -> str:
    """Return a time, or the present one, as a review has it: `2026-11-27T15:01:18Z`."""
    return (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def review_text(reviews: Sequence[Review]) -> str:
    """Return reviews as CSV, in their order."""
    rows = [REVIEW_COLUMNS, *map(review_cells, reviews)]
    # a carriage return, which the writer leaves bare, would end the row for a reader
    bare = any("\r" in cell for row in rows for cell in row)
    file = StringIO()
    quoted: Literal[0, 1] = csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
    csv.writer(file, lineterminator="\n", quoting=quoted).writerows(rows)
    return file.getvalue()


def write_review(path: Path, reviews: Sequence[Review]) -> None:
    """Write reviews as CSV, whole or not at all."""
    content = review_text(reviews).encode("utf-8", errors="surrogateescape")
    with atomic_path(path, len(content)) as temporary:
        temporary.write_bytes(content)


def read_review(path: Path) -> tuple[Review, ...]:
    """Read a table that `write_review` or the page of `jawloc review --sheet` made.

    Raises
    ------
    InputError
        If it isn't such a table, a cell isn't what its column asks, or two rows are of one object
        of one scan.
    """
    try:
        # the names of files may need this
        header, rows = read_cells(path, REVIEW_COLUMNS, errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: a review must be readable; {error.strerror}") from error
    return tuple(review for _, review in numbered_reviews(header, rows, path))


def numbered_reviews(
    header: Sequence[str], rows: Sequence[tuple[int, Row]], path: Path
) -> list[tuple[int, Review]]:
    """Return the reviews in a table's rows with the number of the line of each.

    `header` and `rows` as `read_cells` returns them; errors as `read_review`.
    """
    missing = [name for name in REVIEW_COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path.name}: a review needs the columns {', '.join(REVIEW_COLUMNS)}; it has no "
            f"{missing[0]}"
        )
    found, lines = list[tuple[int, Review]](), dict[tuple[str, str | None], int]()
    for line, row in rows:
        review = _review(row, f"{path.name}, line {line}")
        first = lines.setdefault((review.scan, review.object), line)
        if first != line:
            raise InputError(
                f"{path.name}, line {line}: an object of a scan has one row in a review; "
                f"{review.object!r} of {review.scan!r} has another in line {first}"
            )
        found.append((line, review))
    return found


def scan_file(review: Review, table: Path) -> Path:
    """Return the file of a review's scan, as every reader of the table has to understand its path.

    A path is of the folder of the table, unless it is absolute.
    """
    return table.parent / review.path


def refuse_shared_files(scans: Iterable[tuple[str, Path, str]]) -> None:
    """Raise InputError if two scans of a review have one file, by this path or by another.

    `scans` are their names, the paths and the sources for messages. Which scan the file is, and
    which of the decisions counts, nobody could tell.
    """
    names = dict[Path, str]()
    for scan, path, source in scans:
        other = names.setdefault(real_path(path), scan)
        if other != scan:
            raise InputError(
                f"{source}: two scans must not share a file; {other} and {scan} both have "
                f"{str(path)!r}"
            )


def review_cells(review: Review) -> tuple[str, ...]:
    """Return the cells of a review's row, none of which a table program takes for a formula."""
    at = review.position_voxels_zyx
    texts = (review.reviewer, review.time, review.model, review.path)
    return (
        *(as_cell(review.scan), as_cell(review.object or ""), review.verdict),
        *(("", "", "") if at is None else map(number_text, at)),
        *map(as_cell, texts),
    )


def number_text(value: float) -> str:
    """Return a coordinate in voxels as a review's cells have it: without zeros at its end."""
    rounded = round(value, _DECIMALS) + 0.0  # which makes 0 of -0
    return f"{rounded:.{_DECIMALS}f}".rstrip("0").rstrip(".")


def _review(row: Row, source: str) -> Review:
    scan, object_name, reviewer, model, path = (
        text_of_cell(row[name]) for name in ("scan", "object", "reviewer", "model", "path")
    )
    if "\0" in path:
        raise InputError(f"{source}: path must be the name of a file; {path!r} has a NUL")
    verdict = row["verdict"].strip()
    if not scan.strip():
        raise InputError(f"{source}: scan must be the name of a scan; it is empty")
    if verdict not in VERDICTS:
        raise InputError(f"{source}: verdict must be {_either(VERDICTS)}; it is {verdict!r}")
    position = parse_position([row[axis] for axis in "zyx"], ("z", "y", "x"), source)
    if (position is None) == (verdict in WITH_POSITION):
        rule = "must be given" if position is None else "must be empty"
        given = "they are empty" if position is None else f"they are {position}"
        raise InputError(f"{source}: z, y and x {rule} where the verdict is {verdict}; {given}")
    if position is not None and not object_name:
        raise InputError(f"{source}: object must be named where there is a position; it is empty")
    return Review(
        scan,
        object_name or None,
        verdict,
        position,
        reviewer,
        _time(row["time"].strip(), source),
        model,
        path,
    )


def _time(text: str, source: str) -> str:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.utcoffset() != timedelta(0):
        raise InputError(
            f"{source}: time must be ISO 8601 in UTC, such as 2026-11-27T15:01:18Z; it is {text!r}"
        )
    return time_of_review(time)


def _either(texts: Sequence[str]) -> str:
    return f"{', '.join(texts[:-1])} or {texts[-1]}"
