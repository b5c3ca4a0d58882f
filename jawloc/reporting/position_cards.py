"""Located positions as cards of a page: each with its thumbnail, embedded, and its facts.

The thumbnails were drawn as each scan was located; the large ones stay files, to which links
lead.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jawloc.inference.exports import Row
from jawloc.reporting.location_files import thumbnail_of


@dataclass(frozen=True)
class Card:
    """One position on a page."""

    row: Row
    small: str | None  # base64 of a PNG file; None: the scan failed, or none was drawn
    link: str | None  # to the large picture, relative to the page


def position_cards(folder: Path, rows: Sequence[Row], page: Path) -> list[Card]:
    """Return the cards of rows of the table in a folder, in their order, for a page's file."""
    return [_card(folder, row, page) for row in rows]


def several_objects(cards: Sequence[Card]) -> bool:
    """Return whether a card must say which object it is of."""
    return len({card.row.object for card in cards} - {None}) > 1


def _card(folder: Path, row: Row, page: Path) -> Card:
    if row.picture_file is None:
        return Card(row, None, None)
    picture = Path(os.path.relpath(folder / row.picture_file, page.parent)).as_posix()
    link = quote(os.fsencode(picture))  # a name need not be UTF-8
    try:
        small = (folder / thumbnail_of(row.picture_file)).read_bytes()
    except OSError:  # of a version that drew none
        return Card(row, None, link)
    return Card(row, base64.b64encode(small).decode(), link)
