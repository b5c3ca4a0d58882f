"""The names and logs of Bruker's SkyScan scanners, beside slices and beside projections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from jawloc.errors import InputError, as_input_error
from jawloc.scans.opening import files_in, open_binary

# reconstructed slices; x_rec_spr.bmp beside them is a projection
_SLICE = re.compile(r".*_rec_?\d{4,}\.(?:tiff?|bmp|png)", re.IGNORECASE)
_PIXEL_SIZE = re.compile(r"^\s*Image Pixel Size \(um\)\s*=\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_OF_SLICES = re.compile(r"^\s*Pixel Size \(um\)\s*=\s*(\S+)", re.IGNORECASE | re.MULTILINE)
# A scan begins the log with the acquisition; its reconstruction has a copy, and adds a section.
_ACQUISITION = re.compile(r"^\s*\[Acquisition\]", re.IGNORECASE | re.MULTILINE)
_RECONSTRUCTION = re.compile(r"^\s*\[Reconstruction\]", re.IGNORECASE | re.MULTILINE)
_LARGEST_LOG = 2**20  # bytes


def is_reconstructed(path: Path) -> bool:
    """Return whether a picture's name is that of a reconstructed slice (`*_rec0001.tif`)."""
    return _SLICE.fullmatch(path.name) is not None


def logged_sizes(folder: Path) -> dict[str, float]:
    """Return the pixel sizes in mm that the logs in a folder give, by the logs' names.

    That is the slices' own, of the section [Reconstruction], else the projections', which is
    another where projections were binned for the reconstruction. Raise InputError for a log that
    can't be read, or a size that is no number.
    """
    found = {}
    for path, text in _logs(folder):
        section = _RECONSTRUCTION.search(text)
        own = _OF_SLICES.search(text, section.end()) if section else None
        match = own or _PIXEL_SIZE.search(text)
        if match is not None:
            found[path.name] = _micrometres(match[1], path) * 1e-3
    return found


def log_of_projections(folder: Path) -> str | None:
    """Return the name of a log of an acquisition, where no log in the folder has more than that.

    Raise InputError for a log that can't be read.
    """
    logs = {path.name: text for path, text in _logs(folder)}
    if any(_RECONSTRUCTION.search(text) for text in logs.values()):
        return None
    return next((name for name, text in logs.items() if _ACQUISITION.search(text)), None)


def _logs(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in files_in(folder):
        if path.suffix.lower() == ".log" and path.is_file():
            problem = f"{path.name}: the log can't be read"
            with as_input_error(problem, OSError), open_binary(path) as file:
                text = file.read(_LARGEST_LOG).decode("latin-1")
            yield path, text


def _micrometres(text: str, path: Path) -> float:
    try:
        return float(text.replace(",", ".").replace("_", "?"))  # which Python reads, as in 1_000
    except ValueError as error:
        raise InputError(
            f"{path.name}: the pixel size (um) must be a number; it is {text!r}"
        ) from error
