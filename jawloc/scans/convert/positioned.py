"""Labelled DICOMs of scans and positions in them, each made once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from jawloc.errors import InputError, as_size
from jawloc.scans.atomic import free_bytes, size_of
from jawloc.scans.convert.points import place_points, write_pointed
from jawloc.scans.dicom import read_metadata
from jawloc.scans.dicom.writing import refuse_too_large
from jawloc.scans.file_states import file_states
from jawloc.scans.points import GivenPoint
from jawloc.scans.reading import open_scan

_KEY = "made_from"  # in the metadata
VERSION = 2  # raise it whenever the same scan and positions would give another file
_MOST_BYTES = 2  # of a voxel in a labelled DICOM


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
        about = (VERSION, str(self.image), file_states(self.image), positions)
        return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def find_complaints(
    files: Mapping[Path, PositionedScan], folder: Path
) -> list[tuple[PositionedScan, Exception]]:
    """Return each scan that can't be opened or that a position lies outside of, with the error.

    So that nothing is written before a mistake in the last one is found. `files` are the labelled
    DICOMs that will be written, into the folder or below it.

    Raises
    ------
    InputError
        If there are no complaints, and the folder's disk has no room for the files.
    """
    complaints, sizes = list[tuple[PositionedScan, Exception]](), dict[Path, int]()
    for path, scan in files.items():
        try:
            image = open_scan(scan.image)
            place_points(scan.points, image)
            refuse_too_large(path, image.grid.shape_zyx, image.dtype)
            sizes[path] = min(image.dtype.itemsize, _MOST_BYTES) * prod(image.grid.shape_zyx)
        except (InputError, OSError) as error:
            complaints.append((scan, error))
    # a file takes the place of the one of its name, once it is complete
    more = sum(max(0, size - size_of(path)) for path, size in sizes.items())
    needed = max([more, *sizes.values()])
    if not complaints and (free := free_bytes(folder)) < needed:
        raise InputError(
            f"{folder}: the labelled DICOMs of {len(files)} reviewed scans need {as_size(needed)}; "
            f"its disk has {as_size(free)} left"
        )
    return complaints


def is_made(path: Path, key: str) -> bool:
    """Return whether a file is the labelled DICOM of the scan and positions with this key."""
    try:
        return (read_metadata(path) or {}).get(_KEY) == key
    except (InputError, OSError):
        return False


def write_positioned(path: Path, scan: PositionedScan, key: str) -> None:
    """Write the labelled DICOM of a scan; InputError if it can't be read, or a point is outside."""
    write_pointed(path, open_scan(scan.image), scan.points, metadata={_KEY: key})
