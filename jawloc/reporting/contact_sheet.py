"""All located scans of a folder on one page, the most doubtful first: `contact_sheet.html`.

The thumbnails were drawn as each scan was located and lie in a folder of their own, so that a
page for thousands of scans takes a moment, also after an interruption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from jawloc.inference.exports import Row
from jawloc.reporting.content_policy import page_templates
from jawloc.reporting.location_files import CONTACT_SHEET
from jawloc.reporting.location_text import STATUSES, by_doubt
from jawloc.reporting.position_cards import Card, position_cards, several_objects
from jawloc.reporting.text_files import write_text

TEMPLATE = "contact_sheet.html.j2"


def write_contact_sheet(folder: Path, rows: Sequence[Row], model: str) -> Path:
    """Write the page of all rows of a folder's table, and return its path."""
    path = folder / CONTACT_SHEET
    write_text(path, contact_sheet(position_cards(folder, by_doubt(rows), path), model))
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
            several=several_objects(cards),
        )
    )
