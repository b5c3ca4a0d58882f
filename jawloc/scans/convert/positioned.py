"""Labelled DICOMs of scans and positions in them, each made once and kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.convert.points import write_pointed
from jawloc.scans.dicom import read_metadata
from jawloc.scans.file_states import file_states
from jawloc.scans.points import GivenPoint
from jawloc.scans.reading import open_scan

_KEY = "made_from"  # in the metadata


@dataclass(frozen=True)
class PositionedScan:
    """A scan that people looked at, and the positions of objects in it."""

    scan_id: str
    image: Path
    points: tuple[GivenPoint, ...]

    @property
    def key(self) -> str:
        """Return a text that changes with the scan's files and the positions."""
        positions = [(point.object, point.position_zyx) for point in self.points]
        about = (str(self.image), file_states(self.image), positions)
        return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def is_made(path: Path, key: str) -> bool:
    """Return whether a file is the labelled DICOM of the scan and positions with this key."""
    try:
        return (read_metadata(path) or {}).get(_KEY) == key
    except (InputError, OSError):
        return False


def write_positioned(path: Path, scan: PositionedScan, key: str) -> None:
    """Write the labelled DICOM of a scan; InputError if it can't be read, or a point is outside."""
    write_pointed(path, open_scan(scan.image), scan.points, metadata={_KEY: key})
