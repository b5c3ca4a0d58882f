"""The tables that a run leaves in its folder."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jawloc.reporting.text_files import write_text
from jawloc.training.loop import EpochRecord


def write_metrics_csv(path: Path, records: Sequence[EpochRecord]) -> None:
    """Write one row an epoch, the columns as in the tracking store."""
    _write_csv(path, [record.flat() for record in records])


def write_out_of_fold_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one row an object of a scan.

    Parameters
    ----------
    rows : as in a cross-validation's summary; a position (z, y, x) becomes three columns.
    """
    _write_csv(path, [_flat(row) for row in rows])


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in row.items() if not isinstance(value, list)}
    for key in ("predicted", "truth"):
        for axis, value in zip("zyx", row[f"{key}_voxels_zyx"], strict=True):
            flat[f"{key}_{axis}_voxels"] = value
    return flat


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, with a column for every key of any; None becomes an empty field."""
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
