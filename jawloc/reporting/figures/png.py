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

    Parameters
    ----------
    picture : array of uint8, shape (rows, columns, 3)
        Mostly greys, with some colours; a large one loses greys, not colours.
    """
    for grey_levels in (None, 64, 32):
        reduced = (
            Image.fromarray(picture)
            if grey_levels is None
            else _with_fewer_greys(picture, grey_levels)
        )
        buffer = io.BytesIO()
        reduced.save(buffer, "PNG", dpi=(dots_per_inch, dots_per_inch))
        if buffer.tell() <= LARGEST_FILE_BYTES:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _with_fewer_greys(picture: np.ndarray, grey_levels: int) -> Image.Image:
    """Reduce a picture to a palette of some greys and the rest for colours.

    A scan's noise hardly compresses, so fewer greys make a small file; markers and masks, a few
    pixels that a palette made for all would lose, keep their colours.
    """
    levels = np.linspace(0, 255, grey_levels).round().astype(np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    palette[:grey_levels] = levels[:, None]
    index = np.rint(picture.mean(axis=2) * ((grey_levels - 1) / 255)).astype(np.uint8)
    vivid = np.ptp(picture, axis=2) > 12
    if vivid.any():
        row = Image.fromarray(picture[vivid][None])
        colours = row.quantize(256 - grey_levels, method=Image.Quantize.MAXCOVERAGE)
        found = np.asarray(colours.getpalette(), np.uint8).reshape(-1, 3)[: 256 - grey_levels]
        palette[grey_levels : grey_levels + len(found)] = found
        index[vivid] = np.asarray(colours)[0] + grey_levels
    reduced = Image.fromarray(index)
    reduced.putpalette(palette.tobytes())
    return reduced
