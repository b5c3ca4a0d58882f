"""Texts that fit into the room that they have: measured, then wrapped or shortened, never cut."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from jawloc.reporting.figures.style import WIDTH, Style
from jawloc.reporting.terminal_table import shortened

TITLE_LINE = 0.24  # inches
MARGIN = 0.02  # of the figure's width, on either side of a title
BOLD: Style = {"size": 13, "weight": "bold"}
PLAIN: Style = {"size": 12}


class TitleLine(NamedTuple):
    """A line that fits, and whether it is drawn in bold."""

    text: str
    bold: bool


def fit_title(lines: Sequence[str], width: float = WIDTH) -> list[TitleLine]:
    """Wrap lines, the first of them bold, to the width in inches of a figure."""
    room = width * (1 - 2 * MARGIN)
    # a file's name need not be UTF-8
    texts = [line.encode("utf-8", "replace").decode() for line in lines]
    return [
        TitleLine(part, bold=row == 0)
        for row, line in enumerate(texts)
        for part in wrapped(line, room, bold=row == 0)
    ]


def draw_title(figure: Figure, lines: Sequence[TitleLine]) -> None:
    """Write lines at the top."""
    for row, line in enumerate(lines):
        y = 1 - (0.15 + TITLE_LINE * row) / figure.get_figheight()
        style = BOLD if line.bold else PLAIN
        figure.text(MARGIN, y, line.text, va="top", parse_math=False, **style)


def wrapped(text: str, room: float, *, bold: bool = False) -> list[str]:
    """Return a text in lines of at most so many inches; a word that is longer is broken."""
    parts, characters = [text], len(text)
    while (widest := max(inches(part, bold) for part in parts)) > room and characters > 1:
        characters = max(1, min(characters - 1, int(characters * room / widest)))
        parts = textwrap.wrap(text, characters, break_on_hyphens=False)
    return parts


def fit_label(label: str, room: float) -> str:
    """Return a label, `NAME: REST`, of at most so many inches: in two lines, shortened, if needed.

    What is shortened loses its middle, since names differ at their ends.
    """
    if inches(label) <= room:
        return label
    name, _, rest = label.rpartition(": ")
    return "\n".join(_shortened(part, room) for part in (name, rest) if part)


def _shortened(text: str, room: float) -> str:
    longest = len(text)
    while longest > 1 and inches(shortened(text, longest)) > room:
        longest -= 1
    return shortened(text, longest)


@cache
def inches(text: str, bold: bool = False) -> float:
    """Return the width of one line of text in a picture."""
    font = FontProperties(**(BOLD if bold else PLAIN))
    points: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return points / 72
