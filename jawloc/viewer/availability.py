"""Whether napari can open a window here; it imports neither napari nor Qt."""

from __future__ import annotations

import os
import re
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from jawloc.errors import InputError

_BINDINGS = ("PySide6", "PyQt6", "PyQt5")
_X_PORT = 6000  # of display 0, over a network
_PATIENCE_SECONDS = 3.0


def require_viewer() -> None:
    """Raise InputError, which says what to do, where napari or a display is missing."""
    if find_spec("napari") is None or not any(map(find_spec, _BINDINGS)):
        raise InputError(
            "jawloc review: looking at scans needs napari, which isn't installed; `pip install "
            "'jawloc[napari]'` does it, and --sheet makes a page for a browser instead"
        )
    if not has_display():
        raise InputError(
            "jawloc review: napari needs a display, and there is none; --sheet makes a page for a "
            "browser instead"
        )


def has_display() -> bool:
    """Return whether a window can be opened; Qt would end the process where none can."""
    if sys.platform in ("win32", "darwin"):
        return True
    wayland = os.environ.get("WAYLAND_DISPLAY")
    folder = os.environ.get("XDG_RUNTIME_DIR", "")
    if wayland and Path(folder, wayland).exists():
        return True
    return _answers(os.environ.get("DISPLAY", ""))


def _answers(display: str) -> bool:
    """Return whether somebody listens at an X display such as `:0` or `localhost:10.0`."""
    match = re.fullmatch(r"(?:unix)?([^:/]*):(\d+)(?:\.\d+)?", display)
    if match is None:
        return False
    host, number = match[1], int(match[2])
    try:
        if host:
            socket.create_connection((host, _X_PORT + number), _PATIENCE_SECONDS).close()
            return True
        with socket.socket(socket.AF_UNIX) as local:
            local.settimeout(_PATIENCE_SECONDS)
            local.connect(f"/tmp/.X11-unix/X{number}")
    except OSError:
        return False
    return True
