"""Locate the objects in one scan: from its file to positions, crop and picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jawloc.errors import reason_of
from jawloc.geometry import voxels_to_lps_mm
from jawloc.inference.crop import CropBox, crop_box_around, read_crop
from jawloc.inference.crop_files import write_crop
from jawloc.inference.exports import Row, failed_row, located_row, slicer_text
from jawloc.inference.locator import Localisation
from jawloc.reporting.figures import save_figure
from jawloc.reporting.figures.location import location_picture
from jawloc.reporting.figures.style import write_png
from jawloc.reporting.figures.thumbnail import thumbnail
from jawloc.reporting.location_files import LocateRequest, remove_files, thumbnail_of
from jawloc.reporting.scene_files import write_scene
from jawloc.reporting.text_files import write_text
from jawloc.scans.listing import ListedScan
from jawloc.scans.orthogonal_slices import OrthogonalSlices, silhouettes
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile
from jawloc.workflows.writing_results import WritingError, writing


@dataclass(frozen=True)
class ReadScan:
    """A scan as the locator needs it, and how long reading took."""

    scan: ScanFile
    image: np.ndarray  # downsampled
    seconds: float


@dataclass(frozen=True)
class LocatedScan:
    """What was read and found in a scan, with the crop box of each object."""

    scan: ScanFile
    image: np.ndarray  # downsampled
    found: list[Localisation]
    windows: list[CropBox]
    crops: list[np.ndarray]  # none where nothing is made of them
    projections: OrthogonalSlices | None  # of the image; None where no pictures are drawn


def locate_one(
    request: LocateRequest, listed: ListedScan, key: str, read: Callable[[], ReadScan]
) -> list[Row]:
    """Locate the objects in one scan, write the files of its own, and return its rows."""
    about: dict[str, Any] = {"path": str(listed.path), "model": request.model, "key": key}
    started = time.perf_counter()
    try:
        scan = read()
        started = time.perf_counter() - scan.seconds  # as if it had not waited for other scans
        located = find_objects(request, listed, scan)
        files = [request.outputs(listed.name, one.object_name) for one in located.found]
        for index, names in enumerate(files):
            write_object(request, located, index, names)
        about["seconds"] = round(time.perf_counter() - started, 3)
        rows = [row_of(located, index, {**about, **names}) for index, names in enumerate(files)]
        with writing():
            write_text(request.markups(listed.name), slicer_text(rows))
            write_scene(request, rows, located.windows, located.scan)
        return rows
    except WritingError:
        with suppress(OSError):  # the list of files that is not shortened then is, by --resume
            remove_files(request, listed.name)
        raise
    except Exception as error:  # a night's list must not end with one scan, whatever is wrong
        with writing():
            remove_files(request, listed.name)
        about["seconds"] = round(time.perf_counter() - started, 3)
        return [failed_row(listed.name, reason_of(error, listed.path.name), about)]


def read_downsampled(request: LocateRequest, listed: ListedScan) -> ReadScan:
    """Read a scan slab by slab, and average it onto the locator's grid."""
    started = time.perf_counter()
    scan = open_scan(listed.path, series=listed.series)
    placement = scan.read_placement()  # once, and where an error is the scan's
    scan = replace(scan, read_placement=lambda: placement)
    image = request.locator.downsample(scan)
    return ReadScan(scan, image, time.perf_counter() - started)


def find_objects(request: LocateRequest, listed: ListedScan, read: ReadScan) -> LocatedScan:
    """Find the objects in a scan, and read the crops round them."""
    scan, image = read.scan, read.image
    prediction = request.locator.predict(image)
    found = request.model_options.select(
        request.locator.localise(listed.name, prediction, scan.grid)
    )
    windows = [
        crop_box_around(one.point_voxels, request.crop_size, scan.grid.shape_zyx) for one in found
    ]
    wanted = request.pictures or request.crop_format is not None
    crops = [read_crop(scan, window) for window in windows] if wanted else []
    projections = silhouettes(image) if request.pictures else None
    return LocatedScan(scan, image, found, windows, crops, projections)


def write_object(
    request: LocateRequest, located: LocatedScan, index: int, files: Mapping[str, str | None]
) -> None:
    """Write the crop and the picture of one object."""
    crop_file, picture_file = files["crop_file"], files["picture_file"]
    found, window, grid = located.found[index], located.windows[index], located.scan.grid
    with writing():
        if crop_file is not None:
            write_crop(request.folder / crop_file, located.crops[index], window, located.scan)
        if picture_file is not None and (sides := located.projections) is not None:
            about = (found, grid, located.image, located.crops[index], window)
            picture = location_picture(*about, projections=sides)
            save_figure(picture, request.folder / picture_file)
            small = thumbnail(found, grid, sides, window)
            write_png(small, request.folder / thumbnail_of(picture_file))


def row_of(located: LocatedScan, index: int, about: Mapping[str, Any]) -> Row:
    """Return the row of one object; `about` as for `located_row`."""
    found, window, scan = located.found[index], located.windows[index], located.scan
    lps = voxels_to_lps_mm(np.asarray(found.point_voxels), scan.grid, scan.read_placement())
    return located_row(found, window, None if lps is None else lps.tolist(), about)
