"""Texts in the cells of CSV files that table programs would take for formulas."""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def as_cell(text: str) -> str:
    """Return a text as a cell that no table program runs: an apostrophe before `=`, `+`, `-`, `@`.

    Such names of scans come from names of files. `text_of_cell` takes the apostrophe away.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def text_of_cell(cell: str) -> str:
    """Return the text that `as_cell` made a cell of."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell
