"""What `jawloc locate` found as a table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from jawloc.inference.exports import FAILED, Row
from jawloc.reporting.terminal_table import number, shortened, table_lines

MOST_ROWS = 20  # beyond it, only the most doubtful ones are listed
MOST_DOUBTFUL = 10
LONGEST_REASON = 70
STATUSES = (FAILED, "not found", "uncertain", "ok")  # the most doubtful first


def by_doubt(rows: Iterable[Row]) -> list[Row]:
    """Return rows with the most doubtful first: by status, then by spread."""

    def doubt(row: Row) -> tuple[int, float]:
        known = STATUSES.index(row.status) if row.status in STATUSES else 0
        return known, -(row.spread_voxels or 0.0)

    return sorted(rows, key=doubt)


def describe_rows(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table of all positions, or of many the most doubtful ones."""
    if not rows:
        return []
    if len(rows) <= MOST_ROWS:
        return _position_lines(rows)
    count = Counter(row.status for row in rows)
    counts = [[status, count[status]] for status in STATUSES[::-1] if count[status]]
    doubtful = [row for row in by_doubt(rows) if row.status != "ok"][:MOST_DOUBTFUL]
    lines = table_lines(["status", "positions"], counts)
    return [*lines, "The most doubtful:", *_position_lines(doubtful)] if doubtful else lines


def _position_lines(rows: Sequence[Row]) -> list[str]:
    several = len({row.object for row in rows} - {None}) > 1
    header = ["scan", *(["object"] * several), "z", "y", "x", "spread", "radius (voxels)", "status"]
    found = [row for row in rows if row.status != FAILED]
    if not any(row.radius_voxels is not None for row in found):
        header.remove("radius (voxels)")
    cells = []
    for row in rows:
        reason = row.reason and " ".join(row.reason.split())
        status = row.status if not reason else f"{row.status}: {shortened(reason, LONGEST_REASON)}"
        values = {
            "scan": shortened(row.scan),
            "object": row.object,
            **{axis: number(getattr(row, f"{axis}_voxels"), 1) for axis in "zyx"},
            "spread": number(row.spread_voxels, 1),
            "radius (voxels)": number(row.radius_voxels, 1),
            "status": status,
        }
        cells.append([values[column] for column in header])
    return table_lines(header, cells)


def padding_note(crop_size: Sequence[int], scan: str) -> str:
    """Return why crops of a scan, and of others like it, are padded."""
    size = "×".join(map(str, crop_size))
    return (
        f"note: a crop of {size} voxels is larger than {scan}; the crops of such scans are padded "
        f"with their lowest grey value (--crop-size changes it)"
    )
