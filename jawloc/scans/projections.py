"""Pictures beside folders of slices that are no scan: a scanner's projections, an overview.

SkyScan's software reconstructs the slices of `fish/fish0001.tif ...` into `fish/fish_Rec/`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.dicom.folder import dicom_slices
from jawloc.scans.messages import names_shown, tell
from jawloc.scans.opening import files_in
from jawloc.scans.skyscan import is_reconstructed, log_of_projections
from jawloc.scans.slice_folder import picture_slices

_RECONSTRUCTION_FOLDER = "_rec"  # ends its name, in any case


def pictures_left_out(pictures: Sequence[Path], folders: Sequence[Path]) -> Collection[Path] | None:
    """Return the 2-D pictures of a folder if they are no scan beside its other folders, else None.

    A line says so, and one that folders of pictures beside a scan are not searched.
    """
    if not folders:
        return None
    if len(pictures) == 1:
        tell(f"{pictures[0].name}: a single picture is no scan, and is left out")
        return pictures
    name, found = pictures[0].parent.name, _reconstructions(pictures, folders)
    if found:
        _tell_of(name, found)
        return pictures
    beside = [folder for folder in folders if _pictures_in(folder)]
    if beside:
        tell(f"{name}: its pictures are one scan; those in {_names(beside)} are left out")
    return None


def slices_of(place: Path) -> list[Path]:
    """Return the folders with the slices of a folder of projections, and say so; else the place."""
    found = _reconstructions(_pictures_in(place), _folders_in(place)) if place.is_dir() else []
    if found:
        _tell_of(place.name, found)
    return found or [place]


def refuse_projections(folder: Path, pictures: Sequence[Path]) -> None:
    """Raise InputError for a folder of projections, and warn of pictures that may be some."""
    found = _reconstructions(pictures, _folders_in(folder))
    if found:
        raise InputError(
            f"{folder.name}: the pictures of a scan must be its slices; these are projections, "
            f"and what was reconstructed of them is in {_names(found)}"
        )
    log = None if any(map(is_reconstructed, pictures)) else log_of_projections(folder)
    if log is not None:
        tell(
            f"{folder.name}: its pictures may be projections instead of slices: {log} has no "
            "section [Reconstruction]"
        )


def _tell_of(name: str, reconstructions: Sequence[Path]) -> None:
    tell(
        f"{name}: its pictures are projections, and are left out; what was reconstructed of them "
        f"is in {_names(reconstructions)}"
    )


def _reconstructions(pictures: Sequence[Path], folders: Sequence[Path]) -> list[Path]:
    """Return the folders with the slices of which these are the projections; none if they aren't.

    A folder shows it by its name or its slices' names; any folder of pictures is one where the log
    beside the projections tells of no reconstruction.
    """
    if not pictures or any(map(is_reconstructed, pictures)):
        return []
    named = [
        folder
        for folder in folders
        if (folder.name.lower().endswith(_RECONSTRUCTION_FOLDER) and _holds_slices(folder))
        or any(map(is_reconstructed, _pictures_in(folder)))
    ]
    if named or not folders or not _are_logged_projections(pictures[0].parent):
        return named
    return [folder for folder in folders if _pictures_in(folder)]


def _are_logged_projections(folder: Path) -> bool:
    with suppress(InputError, OSError):  # opening the scan raises it
        return log_of_projections(folder) is not None
    return False


def _pictures_in(folder: Path) -> list[Path]:
    return picture_slices([path for path in _inside(folder) if path.is_file()])


def _holds_slices(folder: Path) -> bool:
    return bool(_pictures_in(folder) or dicom_slices([p for p in _inside(folder) if p.is_file()]))


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in _inside(folder) if path.is_dir()]


def _inside(folder: Path) -> list[Path]:
    with suppress(InputError, OSError):  # whatever may not be read is no reconstruction
        return [path for path in files_in(folder) if not path.name.startswith(".")]
    return []


def _names(paths: Sequence[Path]) -> str:
    return names_shown([path.name for path in paths])
