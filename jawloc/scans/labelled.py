"""Labelled DICOMs at full size, whose masks are the truth that a model is evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.cache.files import is_cached_scan
from jawloc.scans.listing import ListedScan, list_scans
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile

DICOM_ENDINGS = (".dcm", ".dicom")


def list_labelled(named: Sequence[Path], *, exclude: Path | None = None) -> list[ListedScan]:
    """List the labelled DICOMs that files and folders stand for.

    Of a folder, only DICOMs count, and of these not the downsampled copies in a cache. A file that
    is named itself is listed, whatever it is.

    Raises
    ------
    InputError
        If there is none.
    """
    listed = list_scans(named, exclude=exclude)
    themselves = {place.resolve() for place in named}
    kept = [
        scan
        for scan in listed
        if scan.path.resolve() in themselves
        or scan.path.is_dir()
        or (scan.path.suffix.lower() in DICOM_ENDINGS and not is_cached_scan(scan.path))
    ]
    if not kept:
        raise InputError(
            f"{', '.join(str(place) for place in named)}: an evaluation needs at least one "
            f"labelled DICOM at full size (.dcm, .dicom); there is none"
        )
    return kept


def open_labelled(path: Path) -> ScanFile:
    """Open a scan that has a mask at full size.

    Raises
    ------
    InputError
        If it has none, can't be read, or is a downsampled copy, whose mask is not the truth.
    """
    scan = open_scan(path)
    if scan.read_mask is None:
        raise InputError(
            f"{path.name}: an evaluation needs a labelled DICOM, with a mask in element "
            f"(00BB,B001); this scan has none"
        )
    if is_cached_scan(path):
        raise InputError(
            f"{path.name}: an evaluation needs a mask at full size; this is a downsampled copy"
        )
    return scan
