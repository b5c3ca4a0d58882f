"""Tables and paths for the terminal: plain text, aligned, the same in a file.

Not a library's tables: those cut or wrap cells at the width that they guess of a terminal or file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from jawloc.errors import printable


def table_lines(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, indent: int = 2
) -> list[str]:
    """Return a header and rows as aligned lines; None is an empty cell.

    Columns in which every cell is a number (or empty) are aligned to the right.
    """
    # a scan's name may hold what no terminal can show
    texts = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    right = [all(_is_number(row[i]) for row in texts) for i in range(len(header))]
    lines = [list(header), *texts]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(header))]
    return [
        " " * indent
        + "  ".join(
            _padded(cell, width, to_right)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]


def from_here(path: Path) -> Path:
    """Return a path as a user would type it: relative to the current folder if it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def shortened(text: str, longest: int = 40) -> str:
    """Return a text of at most so many characters, its middle left out: names differ at the ends.

    >>> shortened("a_very_long_name_of_a_scan_07", 11)
    'a_ver…an_07'
    """
    if len(text) <= longest:
        return text
    kept = longest - 1
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def number(value: float | None, decimals: int = 2) -> str | None:
    """Return a number for a cell; None stays None."""
    return None if value is None else f"{value:.{decimals}f}"


def _is_number(text: str) -> bool:
    digits = text.removesuffix(" %").replace("–", "").replace(" of ", "")
    try:
        float(digits or 0)
    except ValueError:
        return False
    return True


def _padded(text: str, width: int, to_right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if to_right else text + space


def _width(text: str) -> int:
    """Return the columns that a text takes on a terminal: two for a character of East Asia's."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(bool(unicodedata.combining(c)) for c in text)
