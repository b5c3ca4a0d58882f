"""The page on which a person decides about each located position: `review.html`.

It is one file: the thumbnails are in it, and links lead to the large ones beside it. The
decisions stay in the browser, until a button saves them as review.csv.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jawloc.errors import InputError
from jawloc.inference.exports import Row
from jawloc.inference.quantities import counted
from jawloc.reporting.content_policy import page_templates
from jawloc.reporting.location_files import TABLE
from jawloc.reporting.location_text import by_doubt
from jawloc.reporting.position_cards import position_cards, several_objects
from jawloc.reporting.text_files import write_text
from jawloc.scans.messages import names_shown
from jawloc.scans.points.review import (
    REVIEW,
    REVIEW_COLUMNS,
    Review,
    number_text,
    review_cells,
    scan_file,
)
from jawloc.scans.text_input import real_path

TEMPLATE, SCRIPT = "review_sheet.html.j2", "review_sheet.js"
GENERATOR = "jawloc review"  # by which a page of an earlier command is known
REVIEW_SHEET = "review.html"


@dataclass(frozen=True)
class Earlier:
    """Reviews that a page begins with: those of rows of the table, and all others."""

    of_rows: dict[int, Review]  # by the number of the row
    others: tuple[Review, ...]  # of scans that the table doesn't have, or has at another place

    @property
    def note(self) -> str:
        """Return which decisions aren't shown, as a line; empty where all are."""
        if not self.others:
            return ""
        names = [*dict.fromkeys(review.scan for review in self.others)]
        few, scans = len(self.others) == 1, "scan" if len(names) == 1 else "scans"
        return (
            f"note: {counted(len(self.others), 'decision')} in {REVIEW} "
            f"{'is' if few else 'are'} about no file of {TABLE} ({scans} {names_shown(names)}): "
            f"{'it is' if few else 'they are'} kept, and not shown"
        )


def write_review_sheet(
    path: Path,
    folder: Path,
    rows: Sequence[Row],
    *,
    earlier: Sequence[Review] = (),
    reviewer: str = "",
) -> Earlier:
    """Write the page, and return the reviews that it begins with.

    Parameters
    ----------
    path : of the page
    folder : of the results of `jawloc locate`
    rows : of the results' table, in its order
    earlier : reviews that are there already
    reviewer : name that the page begins with

    Raises
    ------
    InputError
        If another program's file has the page's name.
    """
    _refuse_foreign(path)
    known = match_reviews(folder, rows, earlier)
    templates = page_templates()
    numbers = {id(row): number for number, row in enumerate(rows)}
    cards = position_cards(folder, by_doubt(rows), path)
    page = templates.get_template(TEMPLATE).render(
        cards=[(numbers[id(card.row)], card) for card in cards],
        several=several_objects(cards),
        models=", ".join(dict.fromkeys(row.model for row in rows)),
        reviewer=reviewer,
        data=_data(folder, rows, known),
        script=(Path(__file__).parent / SCRIPT).read_text(encoding="utf-8"),
        generator=GENERATOR,
    )
    write_text(path, page)
    return known


def match_reviews(folder: Path, rows: Sequence[Row], reviews: Sequence[Review]) -> Earlier:
    """Return which review is of which row: of the same object in the same file of a scan.

    Relative paths are of the folder of the results, in which both tables are.

    A position that was accepted and that the table no longer has, since another model has located
    the scan, is one that was moved.
    """
    left = {(review.scan, review.object): review for review in reviews}
    matched = {}
    for number, row in enumerate(rows):
        review = left.get((row.scan, row.object))
        if review is None or not _is_of_file(review, folder, row.path):
            continue
        del left[row.scan, row.object]
        if review.verdict == "accepted" and _texts(review) != position_texts(row):
            review = replace(review, verdict="moved")
        matched[number] = review
    return Earlier(matched, tuple(left.values()))


def _is_of_file(review: Review, folder: Path, path: str) -> bool:
    if review.path in (path, ""):
        return True
    return real_path(scan_file(review, folder / REVIEW)) == real_path(folder / path)


def position_texts(row: Row) -> list[str] | None:
    """Return the position z, y, x that was found, as a review has it; None where there is none."""
    at = (row.z_voxels, row.y_voxels, row.x_voxels)
    return None if None in at else [number_text(value) for value in at if value is not None]


def _data(folder: Path, rows: Sequence[Row], earlier: Earlier) -> dict[str, Any]:
    """Return what the page's script needs to know."""
    return {
        "place": _digest(folder.resolve()),
        "columns": REVIEW_COLUMNS,
        "rows": [
            {
                # of this position: another one is decided about anew
                "id": _digest(row.scan, row.object, row.key, position_texts(row)),
                "scan": row.scan,
                "object": row.object,
                "position": position_texts(row),
                "model": row.model,
                "path": row.path,
            }
            for row in rows
        ],
        "decisions": [
            {
                "row": number,
                "verdict": review.verdict,
                "position": _texts(review),
                "reviewer": review.reviewer,
                "time": review.time,
            }
            for number, review in earlier.of_rows.items()
        ],
        "others": [review_cells(review) for review in earlier.others],
    }


def _texts(review: Review) -> list[str] | None:
    at = review.position_voxels_zyx
    return None if at is None else [number_text(value) for value in at]


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _refuse_foreign(path: Path) -> None:
    try:
        with path.open("rb") as file:
            begin = file.read(1000)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: the page must be a file; {error.strerror}") from error
    if GENERATOR.encode() not in begin:
        raise InputError(
            f"{path}: jawloc didn't write this, and would overwrite it; move it away first, or "
            f"name another file with --output"
        )
