"""The tables that a run leaves in its folder, and its numbers under flat names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jawloc.inference.exports import by_axis, table_text
from jawloc.reporting.text_files import write_text
from jawloc.training.loop import EpochRecord


def flatten(nested: Mapping[str, Any]) -> dict[str, float]:
    """Return the known numbers of nested mappings, their keys joined by underscores.

    None and the empty key leave no trace: {"error": {"": 2, "mm": {"a": 3}, "b": None}} becomes
    {"error": 2.0, "error_mm_a": 3.0}.
    """
    flat: dict[str, float] = {}
    for key, value in nested.items():
        inner = flatten(value) if isinstance(value, Mapping) else {"": value}
        flat |= {
            "_".join(filter(None, (key, name))): float(number)
            for name, number in inner.items()
            if number is not None
        }
    return flat


def write_metrics_csv(path: Path, records: Sequence[EpochRecord]) -> None:
    """Write one row per epoch, with the columns of the tracking store."""
    write_text(path, table_text([record.flat() for record in records]))


def write_out_of_fold_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one row per object of a scan.

    Parameters
    ----------
    rows : as in a cross-validation's summary; a position (z, y, x) becomes three columns.
    """
    table = [
        {key: value for key, value in row.items() if not isinstance(value, list)}
        | by_axis("predicted_{}_voxels", row["predicted_voxels_zyx"])
        | by_axis("truth_{}_voxels", row["truth_voxels_zyx"])
        for row in rows
    ]
    write_text(path, table_text(table))
