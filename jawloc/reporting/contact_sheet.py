"""All located scans of a folder on one page, the most doubtful first: `contact_sheet.html`.

The small pictures were drawn as each scan was located and lie in a folder of their own, so that a
page for thousands of scans takes a moment, also after an interruption.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jawloc.inference.exports import Row
from jawloc.reporting.content_policy import page_templates
from jawloc.reporting.location_files import CONTACT_SHEET, thumbnail_of
from jawloc.reporting.location_text import STATUSES, by_doubt
from jawloc.reporting.text_files import write_text

TEMPLATE = "contact_sheet.html.j2"


@dataclass(frozen=True)
class Card:
    """One position on the page."""

    row: Row
    small: str | None  # base64 of a PNG file; None: the scan failed, or none was drawn
    link: str | None  # to the large picture, relative to the page


def write_contact_sheet(folder: Path, rows: Sequence[Row], model: str) -> Path:
    """Write the page of all rows of a folder's table, and return its path."""
    path = folder / CONTACT_SHEET
    write_text(path, contact_sheet([_card(folder, row) for row in by_doubt(rows)], model))
    return path


def contact_sheet(cards: Sequence[Card], model: str) -> str:
    """Return the HTML page, which needs no network, no script and no other file but for links."""
    count = Counter(card.row.status for card in cards)
    return (
        page_templates()
        .get_template(TEMPLATE)
        .render(
            cards=cards,
            model=model,
            counts=[(status, count[status]) for status in STATUSES if count[status]],
            several=len({card.row.object for card in cards} - {None}) > 1,
        )
    )


def _card(folder: Path, row: Row) -> Card:
    if row.picture_file is None:
        return Card(row, None, None)
    try:
        small = (folder / thumbnail_of(row.picture_file)).read_bytes()
    except OSError:  # of a version that drew none
        return Card(row, None, quote(row.picture_file))
    return Card(row, base64.b64encode(small).decode(), quote(row.picture_file))
