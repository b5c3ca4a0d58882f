"""Make the page on which a person decides about located positions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jawloc.inference.quantities import counted
from jawloc.reporting.location_files import read_locations
from jawloc.reporting.review_sheet import REVIEW_SHEET, write_review_sheet
from jawloc.scans.atomic import make_writable
from jawloc.scans.points.review import REVIEW, read_review


@dataclass(frozen=True)
class SheetResult:
    """A page, how many positions it has, and about how many review.csv had decisions."""

    page: Path
    positions: int
    decided: int
    note: str = ""  # which decisions the page doesn't show

    def __str__(self) -> str:
        left = self.positions - self.decided
        are = "is" if self.decided == 1 else "are"
        known = f" ({self.decided} {are} in {REVIEW})" if self.decided else ""
        return (
            f"{left} of {counted(self.positions, 'position')} to decide about{known}: {self.page}\n"
            f"Open it in a browser; its button saves {REVIEW}, which belongs beside locations.csv."
        )


def make_review_sheet(place: Path, page: Path | None = None, reviewer: str = "") -> SheetResult:
    """Write the page of the results in a folder; it begins with the decisions in its review.csv.

    Parameters
    ----------
    place : a folder of results of `jawloc locate`, or its locations.csv
    page : the page's file; None: review.html in the folder

    Raises
    ------
    InputError
        If there are no such results, review.csv is no review, or another program's file has the
        page's name.
    """
    folder, rows = read_locations(place)
    page = folder / REVIEW_SHEET if page is None else page
    reviews = read_review(folder / REVIEW) if (folder / REVIEW).exists() else ()
    make_writable(page.parent, f"--output: {page.parent} must be a folder that can be written to")
    known = write_review_sheet(page, folder, rows, earlier=reviews, reviewer=reviewer)
    return SheetResult(page, len(rows), len(known.of_rows), known.note)
