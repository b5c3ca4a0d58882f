"""The cells of CSV files, and texts in them that table programs would take for formulas."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Mapping
from io import StringIO
from pathlib import Path

from jawloc.errors import InputError, as_input_error
from jawloc.scans.text_input import read_text

DELIMITERS = ",;\t"
Row = Mapping[str, str]
# what Excel has as a first line, and takes the cells' separator from
_STATED = re.compile(rf'"?sep=([{DELIMITERS}])"?', re.IGNORECASE)
_AXIS = re.compile(r"_[ZYX]$")
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def as_cell(text: str) -> str:
    """Return a text as a cell that no table program runs: an apostrophe before `=`, `+`, `-`, `@`.

    Such names of scans come from names of files. `text_of_cell` takes the apostrophe away.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def text_of_cell(cell: str) -> str:
    """Return the text that `as_cell` made a cell of."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell) else cell


def read_cells(
    path: Path, names: Collection[str], errors: str = "strict"
) -> tuple[list[str], list[tuple[int, Row]]]:
    """Return the names of a table's columns, and each row that isn't empty with its line's number.

    A header may write `names`, and the endings _z, _y and _x of others, in capitals: what a column
    `Object` says must not be passed over. `errors` is as for `bytes.decode`. Raise InputError if it
    is no table in UTF-8, two columns have one name, or a row has more cells or fewer than the
    header.
    """
    damaged = as_input_error(
        f"{path.name}: a table must be text in UTF-8", UnicodeDecodeError, csv.Error
    )
    with damaged, StringIO(read_text(path, "a table", errors=errors), newline="") as file:
        first = file.readline()
        stated = _STATED.fullmatch(first.strip(" \r\n"))
        delimiter = stated[1] if stated else max(DELIMITERS, key=first.count)
        if not stated:
            file.seek(0)
        before = 1 if stated else 0
        reader = csv.reader(file, delimiter=delimiter)
        header = [_own_name(name.strip(), names) for name in next(reader, [])]
        lines = [
            (before + reader.line_num, cells) for cells in reader if any(map(str.strip, cells))
        ]
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise InputError(f"{path.name}: a table's columns must differ; two are called {twice[0]!r}")
    for line, cells in lines:
        if len(cells) != len(header):
            raise InputError(
                f"{path.name}, line {line}: a row must have a cell for each of the "
                f"{len(header)} columns; it has {len(cells)}"
            )
    return header, [(line, dict(zip(header, cells, strict=True))) for line, cells in lines]


def _own_name(header: str, names: Collection[str]) -> str:
    small = header.casefold()
    return small if small in names else _AXIS.sub(lambda axis: axis[0].lower(), header)
