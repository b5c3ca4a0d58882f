"""Corrected positions -> labelled DICOMs, made once in a folder of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jawloc.errors import InputError, reason_of
from jawloc.scans.atomic import make_writable, refuse_links
from jawloc.scans.convert.positioned import PositionedScan, is_made, write_positioned
from jawloc.scans.locks import locked
from jawloc.scans.points import GivenPoint, parse_object
from jawloc.scans.points.corrections import CorrectedScan
from jawloc.scans.progress import Progress

CORRECTED_FOLDER = "corrected_scans"


def write_corrected(
    scans: Sequence[CorrectedScan], folder: Path, *, progress: bool = True
) -> list[Path]:
    """Write a labelled DICOM with the positions of each scan; return them in the scans' order.

    Each has a folder that is named after its image and positions, so that trainings on other
    corrections at the same time have files of their own, and none is written twice.

    Raises
    ------
    InputError
        With a line for each scan that can't be read or that a position lies outside of, or whose
        file is another program's; or if the folder can't be written to.
    """
    if scans:
        refuse_links("corrections", folder)
        make_writable(folder, f"{folder}: the folder of corrected scans must be writable")
    written, complaints = [], []
    how: dict[str, Any] = {"desc": "corrected scans", "unit": "scan", "brief": True}
    for scan in Progress(scans, total=len(scans), shown=progress, **how):
        try:
            written.append(_write(scan, folder))
        except (InputError, OSError) as error:
            complaints.append(reason_of(error, scan.path.name))
    if complaints:
        raise InputError("\n".join(complaints))
    return written


def _write(scan: CorrectedScan, folder: Path) -> Path:
    points = tuple(
        GivenPoint(scan.scan_id, parse_object(p.object, p.source), p.voxels_zyx, "voxels", p.source)
        for p in scan.positions
    )
    positioned = PositionedScan(scan.scan_id, scan.path, points)
    key = positioned.key
    path = folder / key / f"{scan.scan_id}.dcm"
    refuse_links("corrections", path.parent, path)
    with locked(folder / ".locks" / f"{key}.lock"):
        if not is_made(path, key):
            if path.exists():
                raise InputError(f"{path}: jawloc would overwrite it; move it away first")
            write_positioned(path, positioned, key)
    return path
