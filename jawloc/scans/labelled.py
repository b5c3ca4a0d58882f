"""Labelled DICOMs at full size, whose masks are the ground truth of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.cache.files import is_cached_scan
from jawloc.scans.dicom import DICOM_ENDINGS
from jawloc.scans.listing import ListedScan, list_scans
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile


def list_labelled(named: Sequence[Path], *, exclude: Path | None = None) -> list[ListedScan]:
    """List the labelled DICOMs in files and folders.

    Of a folder, only DICOMs count, without the downsampled copies of a cache. A file that is named
    itself is listed, whatever it is. Raise InputError if there is none.
    """
    themselves = {place.resolve() for place in named}
    listed = [
        scan
        for scan in list_scans(named, exclude=exclude)
        if scan.path.resolve() in themselves
        or scan.path.is_dir()
        or (scan.path.suffix.lower() in DICOM_ENDINGS and not is_cached_scan(scan.path))
    ]
    if not listed:
        raise InputError(
            f"{', '.join(str(place) for place in named)}: an evaluation needs at least one "
            f"labelled DICOM at full size (.dcm, .dicom); there is none"
        )
    return listed


def open_labelled(path: Path) -> ScanFile:
    """Open a scan that has a mask at full size; InputError for any other."""
    scan = open_scan(path)
    if scan.read_mask is None:
        raise InputError(
            f"{path.name}: an evaluation needs a labelled DICOM, with a mask in element "
            f"(00BB,B001); the file has no mask"
        )
    if is_cached_scan(path):
        raise InputError(
            f"{path.name}: an evaluation needs a mask at full size; the file is a downsampled copy"
        )
    return scan
