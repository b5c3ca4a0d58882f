"""Corrected positions -> labelled DICOMs, made once in a folder of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jawloc.errors import InputError, reason_of
from jawloc.scans.atomic import make_writable, refuse_links
from jawloc.scans.convert.abandoned import remove_abandoned
from jawloc.scans.convert.positioned import (
    PositionedScan,
    find_complaints,
    is_made,
    write_positioned,
)
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
        With a line for each scan that can't be read or that a position lies outside of, before
        any is written; if a file is another program's, the folder can't be written to, or its
        disk has no room.
    """
    if scans:
        refuse_links("corrections", folder)
        make_writable(folder, f"{folder}: the folder of corrected scans must be writable")
    plan = [_Planned.of(scan, folder) for scan in scans]
    new = {one.path: one.scan for one in plan if not is_made(one.path, one.key)}
    if not (complaints := find_complaints(new, folder)):
        how: dict[str, Any] = {"desc": "corrected scans", "unit": "scan", "brief": True}
        for planned in Progress(plan, total=len(plan), shown=progress, **how):
            try:
                _write(planned, folder)
            except (InputError, OSError) as error:
                complaints.append((planned.scan, error))
    if complaints:
        raise InputError("\n".join(reason_of(error, scan.image.name) for scan, error in complaints))
    return [one.path for one in plan]


@dataclass(frozen=True)
class _Planned:
    """A labelled DICOM that is made, or is there already if it has this key."""

    scan: PositionedScan
    key: str
    path: Path

    @classmethod
    def of(cls, scan: CorrectedScan, folder: Path) -> _Planned:
        points = tuple(
            GivenPoint(
                scan.scan_id, parse_object(p.object, p.source), p.voxels_zyx, "voxels", p.source
            )
            for p in scan.positions
        )
        positioned = PositionedScan(scan.scan_id, scan.path, points)
        key = positioned.key
        return cls(positioned, key, folder / key / f"{scan.scan_id}.dcm")


def _write(planned: _Planned, folder: Path) -> None:
    path, key = planned.path, planned.key
    refuse_links("corrections", path.parent, path)
    with locked(folder / ".locks" / f"{key}.lock"):
        if is_made(path, key):
            return
        if path.exists():
            raise InputError(f"{path}: jawloc would overwrite it; move it away first")
        remove_abandoned(path.parent)
        write_positioned(path, planned.scan, key)
