"""Positions that somebody moved in 3D Slicer and saved: no later command may replace them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.inference.exports import Row
from jawloc.reporting.location_files import MARKUPS
from jawloc.scans.points.slicer import read_markups

MOVED = 1e-3  # mm, or voxels; less is rounding
SAVED_BY_SLICER = b'"orientation"'  # which it gives every point, and jawloc none


def refuse_moved_points(folder: Path, rows: Iterable[Row], stays: Callable[[str], bool]) -> None:
    """Raise InputError if points that somebody moved since would be replaced.

    Parameters
    ----------
    folder : of the results
    rows : that the folder has
    stays : whether a scan's results stay as they are, by its name
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.scan, []).append(row)
    for scan, own in found.items():
        path = folder / MARKUPS / f"{scan}.mrk.json"
        if _were_moved(path, own) and not stays(scan):
            raise InputError(
                f"--output-dir: {path} has points that were moved in 3D Slicer, and would be "
                f"replaced; move it away first, or choose another folder"
            )


def _were_moved(path: Path, rows: Iterable[Row]) -> bool:
    """Return whether 3D Slicer saved a file with points that aren't where rows have them."""
    try:
        if SAVED_BY_SLICER not in path.read_bytes():
            return False
        points = read_markups(path, "").points
    except (OSError, InputError):
        return False
    written = [row.point_mm or (row.z_voxels, row.y_voxels, row.x_voxels) for row in rows]
    known = np.array([at for at in written if None not in at], float).reshape(-1, 3)
    return any(
        not np.any(np.all(np.abs(known - point.position_zyx) <= MOVED, axis=1)) for point in points
    )
