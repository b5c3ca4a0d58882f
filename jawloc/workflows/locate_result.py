"""What `jawloc locate` did, for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jawloc.inference.exports import Row
from jawloc.reporting.location_text import describe_rows


@dataclass(frozen=True)
class LocateResult:
    """How many scans were located, flagged, skipped since they were done before, and failed."""

    located: int
    flagged: int
    skipped: int
    failed: int
    table: Path
    rows: tuple[Row, ...] = ()  # of these scans, those done before included
    sheet: Path | None = None  # None: no pictures were drawn

    def __str__(self) -> str:
        parts = [f"{self.located} scan{'' if self.located == 1 else 's'} located"]
        if self.flagged:
            parts[0] += f" ({self.flagged} not to be trusted: see status and reason)"
        parts += [f"{self.skipped} done before"] if self.skipped else []
        parts += [f"{self.failed} failed (the table says why)"] if self.failed else []
        lines = [*describe_rows(self.rows), f"{', '.join(parts)}: {self.table}"]
        if self.sheet is not None:
            lines.append(f"Pictures of all, the most doubtful first: {self.sheet}")
        return "\n".join(lines)
