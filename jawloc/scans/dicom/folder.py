"""Folders of DICOM files as scanners and archives leave them: which files are the scan.

Beside the slices of a scan, a folder may hold other series, localisers (the overview images from
which a scan is planned), reports, a DICOMDIR, and files that aren't DICOM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from jawloc.errors import InputError
from jawloc.scans.dicom.header import frames_stated, header_value, read_header, shown
from jawloc.scans.messages import names_shown, tell
from jawloc.scans.opening import open_binary
from jawloc.scans.scan import scan_ending

DICOM_ENDINGS = (".dcm", ".dicom")

_MAGIC, _MAGIC_AT = b"DICM", 128  # after a preamble of so many bytes
_LOCALISER = "LOCALIZER"  # in ImageType, as DICOM spells it
# Components of two orientations differ by less where they are of parallel slices.
_SAME_ORIENTATION = 0.01
# Slices of another orientation are localisers if they are at most so large a part of a series.
_LOCALISERS_SHARE = 0.1


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file in a folder, its header read, its pixels not looked at."""

    path: Path
    header: Dataset

    def value(self, keyword: str) -> Any:
        """Return an element's value; None where it is absent; InputError if malformed."""
        return header_value(self.header, keyword, self.path)

    def numbers(self, keyword: str) -> np.ndarray | None:
        """Return an element's value as numbers; None where it is absent."""
        value = self.value(keyword)
        if value is None:
            return None
        try:
            return np.atleast_1d(np.asarray(value, dtype=float))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{self.path.name}: {keyword} must be numbers; it is {shown(value)}"
            ) from error

    @property
    def has_image(self) -> bool:
        """Return whether there is anything of an image: its size or its pixels."""
        return any(name in self.header for name in ("Rows", "Columns", "PixelData"))

    @property
    def frames(self) -> int:
        """Return the number of frames, 1 where it isn't stated or not a number."""
        return frames_stated(self.header)

    @property
    def is_localiser(self) -> bool:
        """Return whether the file says that it is one."""
        kinds = self.value("ImageType") or []
        return _LOCALISER in ([kinds] if isinstance(kinds, str) else [str(k) for k in kinds])


@dataclass(frozen=True)
class Series:
    """The images of one series in a folder; a file of several frames counts as its own."""

    uid: str  # empty where the files have none
    files: tuple[DicomFile, ...]

    def __str__(self) -> str:
        about = shown(self.files[0].value("SeriesDescription") or "") or "no description"
        slices = sum(file.frames for file in self.files)
        return f"{self.uid or 'no UID'} ({about}, {slices} slice{'s' if slices > 1 else ''})"

    @property
    def is_multi_frame(self) -> bool:
        """Return whether all slices are in one file."""
        return self.files[0].frames > 1

    @property
    def is_volume(self) -> bool:
        """Return whether it may be a scan: several parallel grey slices that aren't localisers."""
        grey = [f for f in self.files if f.value("SamplesPerPixel") in (None, 1)]
        slices = [file for file in grey if not file.is_localiser]
        if self.is_multi_frame:
            return bool(slices)
        return any(len(group) > 1 for group in _by_orientation(slices))


def dicom_slices(paths: Sequence[Path]) -> list[Path]:
    """Return the DICOM files among others: those with its ending, and those that begin as one."""
    return [
        path
        for path in paths
        if path.suffix.lower() in DICOM_ENDINGS
        or (scan_ending(path) is None and path.name.upper() != "DICOMDIR" and _is_dicom(path))
    ]


def _is_dicom(path: Path) -> bool:
    try:
        with open_binary(path) as file:
            return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        return False


def choose_series(
    folder: Path, paths: Sequence[Path], named: Sequence[str] = (), *, is_label: bool = False
) -> Series:
    """Return the one series that is the scan in a folder of DICOM files.

    Parameters
    ----------
    named : SeriesInstanceUIDs, of which the folder must hold exactly one; none: the folder must
        have one series, or only one that may be a volume, which a warning says
    is_label : whether the UIDs may all be of other folders, those of images

    Raises
    ------
    InputError
        If a header can't be read, or there isn't exactly one such series: lists all of them.
    """
    every = _all_series([DicomFile(p, read_header(p, whole=False)) for p in sorted(paths)])
    if not every:
        raise InputError(
            f"{folder.name}: a scan needs pixel data; none of the {len(paths)} DICOM files has any"
        )
    listed = ", ".join(sorted(map(str, every)))
    chosen = [series for series in every if series.uid in named]
    if named and (chosen or not is_label):
        if len(chosen) != 1:
            raise InputError(
                f"{folder.name}: --series must name one DICOM series in the folder; it holds "
                f"{listed}, and {len(chosen)} of them were named"
            )
        return chosen[0]
    if len(every) == 1:
        return every[0]
    volumes = [series for series in every if series.is_volume]
    if len(volumes) != 1:
        raise InputError(
            f"{folder.name}: a folder must hold one DICOM series; it holds {listed}: choose one "
            "with --series UID, where the command has this option, or leave only one in the folder"
        )
    tell(f"{folder.name}: of {len(every)} DICOM series only {volumes[0]} is a volume: it is read")
    return volumes[0]


def _all_series(files: Sequence[DicomFile]) -> list[Series]:
    """Group files by series; InputError for a file without an image in a series of images."""
    groups: dict[tuple[str, Path | None], list[DicomFile]] = {}
    for file in files:
        uid = shown(file.value("SeriesInstanceUID") or "")
        groups.setdefault((uid, file.path if file.frames > 1 else None), []).append(file)
    return [
        Series(uid, tuple(group))
        for (uid, _), group in groups.items()
        if any(file.has_image for file in group)
    ]


def without_localisers(folder: Path, files: Sequence[DicomFile]) -> list[DicomFile]:
    """Return the slices of a series without its localisers; a warning names those left out.

    They are slices that say so, and a few of another orientation than all others.
    """
    slices = [file for file in files if not file.is_localiser]
    if len(slices) < 2:
        slices = list(files)
    largest, *others = _by_orientation(slices)
    share = _LOCALISERS_SHARE * len(slices)
    if others and len(largest) > 1 and len(slices) - len(largest) <= max(1, share):
        slices = largest
    kept = {file.path for file in slices}
    left_out = [file.path.name for file in files if file.path not in kept]
    if left_out:
        tell(f"{folder.name}: localisers are left out: {names_shown(left_out)}")
    return slices


def _by_orientation(files: Sequence[DicomFile]) -> list[list[DicomFile]]:
    """Group slices by their orientation, the largest group first."""
    groups: list[tuple[np.ndarray, list[DicomFile]]] = []
    for file in files:
        found = file.numbers("ImageOrientationPatient")
        own = np.zeros(6) if found is None else found
        for axes, group in groups:
            if axes.shape == own.shape and np.abs(axes - own).max(initial=0) < _SAME_ORIENTATION:
                group.append(file)
                break
        else:
            groups.append((own, [file]))
    return sorted((group for _, group in groups), key=len, reverse=True) or [[]]
