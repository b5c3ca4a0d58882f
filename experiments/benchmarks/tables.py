"""A benchmark's numbers: tables as text and as CSV, and how they are drawn."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Row = Mapping[str, object]


@dataclass(frozen=True)
class Bars:
    """A picture of a table: one horizontal bar a row.

    Attributes
    ----------
    value : str
        The column that bars are drawn of; where `<value>_min` and `<value>_max` exist, they
        become whiskers.
    axis : str
        Label of the axis, with its unit.
    log : bool
        Whether the axis is logarithmic.
    limit : (value, words), optional
        A dashed line, for instance a physical limit or a goal.
    """

    value: str
    axis: str
    log: bool = False
    limit: tuple[float, str] | None = None


@dataclass(frozen=True)
class Lines:
    """A picture of a table: one line for each value of the column `series`.

    Attributes
    ----------
    x, y, series : str
        Columns.
    x_axis, y_axis : str
        Labels of the axes, with their units.
    log_x, log_y : bool
    limit : (y, words), optional
        As in `Bars`.
    linear : bool
        Whether a dotted line from each line's first point shows what linear growth would be; for
        two logarithmic axes.
    """

    x: str
    y: str
    series: str
    x_axis: str
    y_axis: str
    log_x: bool = False
    log_y: bool = False
    limit: tuple[float, str] | None = None
    linear: bool = False


@dataclass(frozen=True)
class Table:
    """One table of a benchmark.

    Attributes
    ----------
    name : str
        A short name, in the CSV's first column and in the names of MLflow's metrics.
    title : str
        What was done to what; above the table and its panel.
    rows : sequence of mappings from a column to its value
        The first column names the row.
    panel : Bars, Lines or None
        How it is drawn.
    """

    name: str
    title: str
    rows: Sequence[Row]
    panel: Bars | Lines | None = None


def aligned(rows: Sequence[Row]) -> str:
    """Return rows as text in aligned columns, numbers to three figures."""
    columns = columns_of(rows)
    cells = [columns, *[[short(row.get(column, "")) for column in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    right = [any(isinstance(row.get(column), int | float) for row in rows) for column in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, is_number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return every column of some rows, in the order in which they turn up."""
    return list(dict.fromkeys(column for row in rows for column in row))


def short(value: object) -> str:
    """Return a value as text, a float to three figures."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write_csv(path: Path, tables: Sequence[Table]) -> None:
    """Write all tables into one file, the first column saying which table a row belongs to."""
    rows = [{"table": table.name, **row} for table in tables for row in table.rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns_of(rows), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )
