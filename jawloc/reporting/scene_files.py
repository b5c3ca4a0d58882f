"""The files with which 3D Slicer opens a located scan, its positions and its crop boxes at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jawloc.inference.crop import CropBox
from jawloc.inference.exports import Row
from jawloc.inference.slicer_scene import crop_box_text, scene_text, volume_of
from jawloc.reporting.location_files import CROPS, MARKUPS, LocateRequest
from jawloc.reporting.text_files import write_text
from jawloc.scans.scan import ScanFile


def write_scene(
    request: LocateRequest, rows: Sequence[Row], windows: Sequence[CropBox], scan: ScanFile
) -> None:
    """Write a scan's scene and the boxes in it, where there is a volume that 3D Slicer places.

    `rows` are of the scan's objects, `windows` their crop boxes.
    """
    name, path = rows[0].scan, Path(rows[0].path)
    scene, boxes = request.scene(name)
    crops = [request.folder / row.crop_file for row in rows if row.crop_file is not None]
    volume = volume_of(path, scan.grid.spacing_mm_zyx, crops)
    if volume is None:
        for earlier in (scene, *boxes.values()):  # of a run that wrote crops
            earlier.unlink(missing_ok=True)
        return
    placement = scan.read_placement()
    scene.parent.mkdir(exist_ok=True)
    for row, window in zip(rows, windows, strict=True):
        if row.object is not None:
            text = crop_box_text(row.object, window, scan.grid, placement)
            write_text(boxes[row.object], text)
    if volume != path:
        volume = Path("..", CROPS, volume.name)
    markups = Path("..", MARKUPS, request.markups(name).name)
    names = {key: Path(box.name) for key, box in boxes.items()}
    write_text(scene, scene_text(name, volume, markups, names))
