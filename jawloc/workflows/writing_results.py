"""The results of `jawloc locate` that are of all scans, and what ends the work: no more writing."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from jawloc.errors import DiskFullError, InputError
from jawloc.inference.exports import csv_text, json_text, napari_text
from jawloc.reporting.contact_sheet import write_contact_sheet
from jawloc.reporting.location_files import TABLE, LocateRequest, Table
from jawloc.reporting.text_files import write_text
from jawloc.scans.listing import ListedScan


def in_listed_order(table: Table, scans: Sequence[ListedScan]) -> Table:
    """Return a table in which the listed scans follow each other as they are listed.

    They take the places that they have in the table already. Scans end in any order on a cluster,
    and a run that was interrupted leaves gaps: all the same, the rows are in one order in the end.
    """
    listed = [scan.name for scan in scans if scan.name in table]
    following, known = iter(listed), set(listed)
    names = [next(following) if name in known else name for name in table]
    return {name: table[name] for name in names}


def write_tables(folder: Path, table: Table) -> None:
    """Write the tables of all scans, each whole or not at all."""
    rows = [row for of_scan in table.values() for row in of_scan]
    with writing():
        write_text(folder / "locations.json", json_text(rows))
        write_text(folder / "napari_points.csv", napari_text(rows))
        write_text(folder / TABLE, csv_text(rows))  # the last, since it says what is done


def write_sheet(request: LocateRequest, table: Table) -> Path | None:
    """Write the page that shows every scan of the table; None without pictures."""
    if not request.pictures:
        return None
    with writing():
        rows = [row for of_scan in table.values() for row in of_scan]
        return write_contact_sheet(request.folder, rows, request.model)


class WritingError(OSError):
    """Results can't be written: unlike a scan that can't be read, this ends the work."""


@contextmanager
def writing() -> Iterator[None]:
    """Turn an error in the block, which writes results, into one that ends the work."""
    try:
        yield
    except DiskFullError as error:  # says which folder, and how much it needs
        raise WritingError(error.errno, str(error)) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # which no other scan need be
            raise InputError(
                "the names of a scan's results must not be too long for the disk; they would be, "
                "of this scan or one of its objects"
            ) from error
        raise WritingError(error.errno, error.strerror or str(error)) from error


@contextmanager
def with_resume_hint(folder: Path, count: Mapping[str, int], total: int) -> Iterator[None]:
    """Say in the error that ends the work how many scans are done, and how to go on."""
    try:
        yield
    except (WritingError, ConnectionError, KeyboardInterrupt) as error:
        ended = sum(n for what, n in count.items() if what != "flagged")
        done = f"{ended} of {total} scans are done; the same command with --resume"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"interrupted; {done} goes on") from None
        if isinstance(error, ConnectionError):
            raise ConnectionError(f"{error}; {done} goes on") from error
        raise OSError(
            f"{folder}: results can't be written ({error.strerror}); {done} goes on once they can"
        ) from error
