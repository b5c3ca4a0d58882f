"""Pictures of a benchmark's tables: bars and lines in one PNG, a panel for each table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tables import Bars, Lines, Row, Table, columns_of, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_WIDTH, BAR_HEIGHT, LINES_HEIGHT = 10.0, 0.42, 4.5  # inches
CAPTION_CHARACTERS = 140  # a line
FEW_PLACES = 6  # on an axis, that are all labelled
TITLE_CHARACTERS = 66  # long names of bars push the panel, and its title, to the right


def draw(path: Path, tables: Sequence[Table], caption: str) -> None:
    """Draw every table that has a panel, one below the other, the caption at the foot."""
    from matplotlib import rc_context

    from jawloc.reporting.figures import Figure, save_figure
    from jawloc.reporting.figures.style import STYLE

    colours = _colours(tables)
    caption = textwrap.fill(caption, CAPTION_CHARACTERS)
    heights = [
        1.4 + BAR_HEIGHT * len(table.rows) if isinstance(table.panel, Bars) else LINES_HEIGHT
        for table in tables
    ]
    below = 0.25 * (caption.count("\n") + 2)
    with rc_context(STYLE):
        figure = Figure((PANEL_WIDTH, sum(heights) + below), layout="constrained")
        panels, foot = figure.subfigures(2, 1, height_ratios=[sum(heights), below])
        grid = panels.subplots(len(tables), 1, height_ratios=heights, squeeze=False)
        for axes, table in zip(grid[:, 0], tables, strict=True):
            axes.set_title(textwrap.fill(table.title, TITLE_CHARACTERS), loc="left")
            if isinstance(table.panel, Bars):
                _draw_bars(axes, table.rows, table.panel)
            else:
                _draw_lines(axes, table.rows, table.panel, colours)
        foot.text(0.01, 0.95, caption, va="top", fontsize=9)
        save_figure(figure, path)


def _colours(tables: Sequence[Table]) -> dict[str, str]:
    """Return a colour for each line: the same in every panel."""
    from jawloc.reporting.figures.style import Colour

    drawn = [(table.rows, table.panel.series) for table in tables if isinstance(table.panel, Lines)]
    names = dict.fromkeys(str(row[series]) for rows, series in drawn for row in rows)
    some = (
        Colour.BLUE,
        Colour.VERMILION,
        Colour.GREEN,
        Colour.ORANGE,
        Colour.PURPLE,
        "black",
        Colour.SKY,
        "dimgray",
    )
    return dict(zip(names, cycle(some), strict=False))


def _draw_bars(axes: Axes, rows: Sequence[Row], panel: Any) -> None:
    from jawloc.reporting.figures.style import Colour

    value, first = panel.value, columns_of(rows)[0]
    shown = [row for row in rows if row.get(value) not in (None, "")]
    widths = [float(str(row[value])) for row in shown]
    axes.barh(range(len(shown)), widths, color=Colour.SKY, log=panel.log)
    for place, (row, width) in enumerate(zip(shown, widths, strict=True)):
        low, high = (float(str(row.get(f"{value}_{end}", width))) for end in ("min", "max"))
        axes.plot([low, high], [place, place], color="black", linewidth=1.5)
        axes.annotate(
            short(width),
            (high, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            bbox={"color": "white", "pad": 1},  # a limit's line may run behind it
        )
    axes.set_yticks(range(len(shown)), [textwrap.fill(str(row[first]), 40) for row in shown])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(panel.axis)
    if panel.limit is not None:
        _draw_limit(axes.axvline, *panel.limit)
        axes.legend(loc="best", frameon=True, framealpha=1)


def _draw_lines(axes: Axes, rows: Sequence[Row], panel: Any, colours: Mapping[str, str]) -> None:
    for name in dict.fromkeys(str(row[panel.series]) for row in rows):
        own = [row for row in rows if str(row[panel.series]) == name]
        x, y = ([float(str(row[key])) for row in own] for key in (panel.x, panel.y))
        colour = colours[name]
        axes.plot(x, y, marker="o", label=name, color=colour)
        if panel.linear:
            axes.plot(x, [y[0] * here / x[0] for here in x], color=colour, linestyle=":")
    if panel.log_x:
        axes.set_xscale("log")
        places = sorted({float(str(row[panel.x])) for row in rows})
        if len(places) <= FEW_PLACES:  # the measured values instead of powers of ten
            axes.set_xticks(places, [short(place) for place in places])
            axes.set_xticks([], minor=True)
    if panel.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=panel.x_axis, ylabel=panel.y_axis)
    if panel.limit is not None:
        _draw_limit(axes.axhline, *panel.limit)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))  # beside the lines, not on them


def _draw_limit(line: Any, value: float, words: str) -> None:
    line(value, color="black", linestyle="--", linewidth=1.5, label=words)
