"""Whether the files of a scan are still those that something was made from."""

from __future__ import annotations

from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.volumes import VOLUME_ENDINGS, voxel_files


def file_states(scan: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of a scan's files; none where they can't be read.

    A folder's slices and a header's voxels are among them.
    """
    files = [scan]
    try:
        if scan.is_dir():
            files = sorted(scan.iterdir())
        elif scan.name.lower().endswith(VOLUME_ENDINGS):
            files = sorted({scan, *voxel_files(scan)})
        states = [(file.name, file.stat()) for file in files if file.exists()]
    except (OSError, InputError):  # opening the scan names the reason
        return []
    return [(name, state.st_size, state.st_mtime_ns) for name, state in states]
