"""Draws the picture of review.md: `python -m docs.picture_of_review`, some seconds on a display.

Without one, `xvfb-run -s "-screen 0 1600x1000x24" python -m docs.picture_of_review`.
"""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
from PIL import Image
from qtpy.QtCore import QEventLoop

from jawloc.inference.exports import Row, csv_text
from jawloc.phantom import write_phantom
from jawloc.scans.reading import read_scan
from jawloc.viewer.review import ReviewWindow
from jawloc.workflows.review_session import ReviewSession

PICTURE = Path(__file__).parent / "images" / "review.png"
SHAPE, CROP = (500, 160, 160), (96, 96, 96)
WRONG_VOXELS = (9.0, 4.0, -5.0)  # by which the position misses the jaw
REASON = "the heatmap is wider than those of the model's own scans"
DRAWN_SECONDS = 2.0
COLOURS = 128  # a small file


def write_results(folder: Path) -> None:
    """Write results of two scans, the first with a doubtful position."""
    (folder / "imgs").mkdir()
    tifffile.imwrite(folder / "imgs" / "crop.tif", np.zeros(CROP, np.uint16))
    rows = []
    for seed, name in enumerate(("fish_07", "fish_12")):
        path = folder / f"{name}.dcm"
        write_phantom(path, seed, SHAPE)
        scan = read_scan(path)
        assert scan.mask is not None
        assert scan.grid.spacing_mm_zyx is not None
        z, y, x = (np.argwhere(scan.mask).mean(axis=0) + WRONG_VOXELS).tolist()
        about = {
            "scan": name,
            "object": "jaw",
            "path": str(path),
            "model": "my_locator",
            "key": "",
            "z_voxels": z,
            "y_voxels": y,
            "x_voxels": x,
            "crop_file": "imgs/crop.tif",
            "radius_voxels": 14.0,
            "radius_mm": 14 * max(scan.grid.spacing_mm_zyx),
            "status": "ok" if seed else "uncertain",
            "reason": None if seed else REASON,
        }
        rows.append(Row(**(dict.fromkeys(field.name for field in fields(Row)) | about)))
    (folder / "locations.csv").write_text(csv_text(rows), encoding="utf-8")


def draw(folder: Path) -> None:
    """Open the window, and keep what it shows."""
    window = ReviewWindow(ReviewSession(folder, "Ana"))
    window.viewer.window._qt_window.resize(1400, 900)
    window.do("near")
    events, end = QEventLoop(), time.monotonic() + DRAWN_SECONDS
    while window.is_reading or time.monotonic() < end:
        events.processEvents()
    window.do("near")  # of the window's last size
    shown = window.viewer.screenshot(canvas_only=False, flash=False)
    picture = Image.fromarray(shown[..., :3])
    # a method that keeps the colours of few pixels
    coverage, undithered = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    picture.quantize(COLOURS, coverage, dither=undithered).save(PICTURE)
    window.close()


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        write_results(Path(place))
        draw(Path(place))
