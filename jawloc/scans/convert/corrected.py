"""Corrected positions -> labelled DICOMs, made once in a folder of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jawloc.errors import InputError, reason_of
from jawloc.scans.atomic import make_writable
from jawloc.scans.convert.points import write_pointed
from jawloc.scans.dicom import read_metadata
from jawloc.scans.locks import locked
from jawloc.scans.points import GivenPoint, parse_object
from jawloc.scans.points.corrections import CorrectedScan
from jawloc.scans.progress import Progress
from jawloc.scans.reading import open_scan

CORRECTED_FOLDER = "corrected_scans"
_KEY = "corrected"  # of the metadata: what the file was made from


def write_corrected(
    scans: Sequence[CorrectedScan], folder: Path, *, progress: bool = True
) -> list[Path]:
    """Write a labelled DICOM with the positions of each scan; return them in the scans' order.

    A file that was made of the same image and positions stays as it is; another one is replaced.

    Raises
    ------
    InputError
        With a line for each scan that can't be read or that a position lies outside of, or if the
        folder can't be written to.
    """
    targets = [folder / f"{scan.scan_id}.dcm" for scan in scans]
    if scans:
        make_writable(folder, f"{folder}: the folder of corrected scans must be writable")
    complaints = []
    how: dict[str, Any] = {"desc": "corrected scans", "unit": "scan", "brief": True}
    pairs = list(zip(scans, targets, strict=True))
    for scan, target in Progress(pairs, total=len(pairs), shown=progress, **how):
        try:
            with locked(folder / ".locks" / f"{scan.scan_id}.lock"):
                _write(scan, target)
        except (InputError, OSError) as error:
            complaints.append(reason_of(error, scan.path.name))
    if complaints:
        raise InputError("\n".join(complaints))
    return targets


def _write(scan: CorrectedScan, target: Path) -> None:
    stat = scan.path.stat()
    made_from = {
        "image": str(scan.path),
        "size": stat.st_size,
        "modified_ns": stat.st_mtime_ns,
        "positions": [[p.object, *p.voxels_zyx] for p in scan.positions],
    }
    if _made_from(target) == made_from:
        return
    points = [
        GivenPoint(scan.scan_id, parse_object(p.object, p.source), p.voxels_zyx, "voxels", p.source)
        for p in scan.positions
    ]
    write_pointed(target, open_scan(scan.path), points, metadata={_KEY: made_from})


def _made_from(target: Path) -> object:
    """Return what a file was made from; None if there is none, or it is no such file."""
    try:
        return (read_metadata(target) or {}).get(_KEY)
    except (InputError, OSError):
        return None
