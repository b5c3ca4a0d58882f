"""What conversions that were killed left behind."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import psutil

from jawloc.scans.atomic import writer_of_temporary

# A temporary file that didn't change for so long is nobody's: if its process is gone; in any case.
_QUIET_SECONDS, _ABANDONED_SECONDS = 600.0, 86_400.0


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of labelled DICOMs that killed processes left in a folder.

    One that another machine may be writing, whose processes this one doesn't know, has been
    written to a moment ago.
    """
    for path in folder.glob(".*.part.*.dcm"):
        writer = writer_of_temporary(path)
        if writer is None:
            continue
        with suppress(OSError):  # another process has just removed it, or completed its file
            unchanged = time.time() - path.stat().st_mtime
            is_alive = psutil.pid_exists(writer)
            if unchanged > (_ABANDONED_SECONDS if is_alive else _QUIET_SECONDS):
                path.unlink()
