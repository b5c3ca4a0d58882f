"""Labelled DICOMs at full size: those to train on, and those to evaluate a model on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.cache.files import is_cached_scan
from jawloc.scans.convert.reviewed import is_review, reviewed_scans
from jawloc.scans.dicom import DICOM_ENDINGS
from jawloc.scans.listing import ListedScan, files_below, list_scans
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile
from jawloc.scans.text_input import real_path


def find_labelled_dicoms(folders: Sequence[Path], *, exclude: Sequence[Path] = ()) -> list[Path]:
    """Return all DICOM files below the folders, at every depth, sorted by scan id.

    A review.csv stands for the labelled DICOMs that `reviewed_scans` makes of it. Hidden files and
    folders, and the folders `exclude` (the cache, corrected scans), are left out. Raise InputError
    if a folder does not exist or holds no DICOM file, another file is named, or two files have one
    scan id.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if Path(folder).is_file():
            folder = _folder_of_review(Path(folder))
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: a folder of scans must exist; there is no such folder")
        below = files_below(Path(folder), exclude)
        paths = [path for path in below if path.suffix.lower() in DICOM_ENDINGS]
        if not paths:
            raise InputError(
                f"{folder}: a folder of scans must hold DICOM files (.dcm, .dicom); it has none"
            )
        for path in paths:
            other = found.setdefault(path.stem, path)
            if real_path(other) != real_path(path):
                raise InputError(
                    f"{path.stem}: two scans must not share an id (file name); {other} and {path}"
                )
    return [found[scan_id] for scan_id in sorted(found)]


def _folder_of_review(path: Path) -> Path:
    if is_review(path):
        return reviewed_scans(path)
    raise InputError(
        f"{path}: dicom_dirs must name folders of labelled DICOMs, or a review.csv of `jawloc "
        f"review`; this is another file, and `jawloc dicoms IMAGES TABLE OUT` makes such a folder "
        f"of a table of points"
    )


def list_labelled(named: Sequence[Path], *, exclude: Path | None = None) -> list[ListedScan]:
    """List the labelled DICOMs in files and folders.

    Of a folder, only DICOMs count, without the downsampled copies of a cache. A file that is named
    itself is listed, whatever it is. Raise InputError if there is none.
    """
    themselves = {real_path(place) for place in named}
    listed = [
        scan
        for scan in list_scans(named, exclude=exclude)
        if real_path(scan.path) in themselves
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
    """Open a scan that has a mask or points at full size; InputError for any other."""
    scan = open_scan(path)
    if not scan.is_labelled:
        raise InputError(
            f"{path.name}: an evaluation needs a labelled DICOM, with a mask in element "
            f"(00BB,B001) or points in (00BB,B002), or images and their masks in two folders; the "
            f"file has neither"
        )
    if is_cached_scan(path):
        raise InputError(
            f"{path.name}: an evaluation needs labels at full size; the file is a downsampled copy"
        )
    return scan
