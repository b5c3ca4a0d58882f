"""Pictures of a benchmark's tables: bars and lines in one PNG, a panel for each table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tables import Bars, Row, Table, columns_of, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_WIDTH, BAR_HEIGHT, LINES_HEIGHT = 10.0, 0.42, 4.5  # inches
CAPTION_CHARACTERS = 140  # a line
TITLE_CHARACTERS = 66  # long names of bars push the panel, and its title, to the right


def draw(path: Path, tables: Sequence[Table], caption: str) -> None:
    """Draw every table that has a panel, one below the other, the caption at the foot."""
    from matplotlib import rc_context

    from jawloc.reporting.figures import Figure, save_figure
    from jawloc.reporting.figures.style import STYLE

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
            draw_panel = _draw_bars if isinstance(table.panel, Bars) else _draw_lines
            draw_panel(axes, table.rows, table.panel)
        foot.text(0.01, 0.95, caption, va="top", fontsize=9)
        save_figure(figure, path)


def _draw_bars(axes: Axes, rows: Sequence[Row], panel: Any) -> None:
    from jawloc.reporting.figures.style import SKY

    value, first = panel.value, columns_of(rows)[0]
    shown = [row for row in rows if row.get(value) not in (None, "")]
    widths = [float(str(row[value])) for row in shown]
    axes.barh(range(len(shown)), widths, color=SKY, log=panel.log)
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


def _draw_lines(axes: Axes, rows: Sequence[Row], panel: Any) -> None:
    from jawloc.reporting.figures.style import BLUE, GREEN, ORANGE, PURPLE, VERMILION

    colours = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, "black")
    for number, name in enumerate(dict.fromkeys(str(row[panel.series]) for row in rows)):
        own = [row for row in rows if str(row[panel.series]) == name]
        x, y = ([float(str(row[key])) for row in own] for key in (panel.x, panel.y))
        colour = colours[number % len(colours)]
        axes.plot(x, y, marker="o", label=name, color=colour)
        if panel.linear:
            axes.plot(x, [y[0] * here / x[0] for here in x], color=colour, linestyle=":")
    if panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(xlabel=panel.x_axis, ylabel=panel.y_axis)
    if panel.limit is not None:
        _draw_limit(axes.axhline, *panel.limit)
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_limit(line: Any, value: float, words: str) -> None:
    line(value, color="black", linestyle="--", linewidth=1.5, label=words)
