"""Pictures as small PNG files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from jawloc.scans.atomic import atomic_path

LARGEST_FILE_BYTES = 400_000


def write_png(picture: np.ndarray, path: Path, dots_per_inch: int) -> None:
    """Write a picture as a PNG of about 400 kB at most, whole or not at all.

    A scan's noise hardly compresses; a large picture gets a palette, of ever fewer colours. That of
    maximum coverage keeps the few pixels of a marker.

    Parameters
    ----------
    picture : array of uint8, shape (rows, columns, 3)
    """
    reduced = image = Image.fromarray(picture)
    for colours in (None, 256, 128, 64, 32):
        if colours is not None:
            method = Image.Quantize.MAXCOVERAGE
            reduced = image.quantize(colours, method, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        reduced.save(buffer, "PNG", dpi=(dots_per_inch, dots_per_inch))
        if buffer.tell() <= LARGEST_FILE_BYTES:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
