"""Locate the objects in many scans: from their files to positions, crops and pictures.

A scan that can't be read is a row of the table that says why. A result that can't be written ends
the work, with everything written so far in order. While the objects of one scan are found and
written, a thread reads the next scan.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.errors import DiskFullError, InputError, reason_of
from jawloc.geometry import voxels_to_lps_mm
from jawloc.inference.crop import CropBox, crop_box_around, read_crop
from jawloc.inference.crop_files import write_crop
from jawloc.inference.exports import (
    FAILED,
    Row,
    csv_text,
    failed_row,
    json_text,
    located_row,
    napari_text,
    slicer_text,
)
from jawloc.inference.locator import Localisation
from jawloc.reporting.contact_sheet import write_contact_sheet
from jawloc.reporting.figures import save_figure
from jawloc.reporting.figures.location import location_picture
from jawloc.reporting.figures.style import write_png
from jawloc.reporting.figures.thumbnail import thumbnail
from jawloc.reporting.folders.own_files import own_names, refuse_foreign
from jawloc.reporting.folders.run_folder import is_run_folder, locked_output_folder
from jawloc.reporting.location_files import (
    CONTACT_SHEET,
    TABLE,
    TABLES,
    LocateRequest,
    Table,
    files_of,
    is_done,
    make_folders,
    remove_files,
    thumbnail_of,
)
from jawloc.reporting.location_text import padding_note
from jawloc.reporting.scene_files import write_scene
from jawloc.reporting.text_files import write_text
from jawloc.scans.downsample import downsample_image
from jawloc.scans.listing import ListedScan, describe_failure
from jawloc.scans.manifest import start_manifest
from jawloc.scans.orthogonal_slices import OrthogonalSlices, silhouettes
from jawloc.scans.progress import Progress
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile
from jawloc.workflows.locate_result import LocateResult


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


def locate_scans(request: LocateRequest, scans: Sequence[ListedScan], table: Table) -> LocateResult:
    """Locate scan after scan; the tables are complete after each.

    Parameters
    ----------
    table : the rows that are there already; those of scans that aren't listed stay as they are.

    Raises
    ------
    InputError
        If the folder can't be made or written to, its disk is full, another process writes into
        it, or it holds a file of others that would be overwritten; before any work.
    OSError
        If results can't be written any more; says how to go on.
    KeyboardInterrupt
        Likewise.
    """
    table, padded = dict(table), False
    count = {"located": 0, "flagged": 0, "skipped": 0, "failed": 0}
    with (
        _locked_folder(request, scans),
        _with_resume_hint(request.folder, count, len(scans)),
        Progress(total=len(scans), desc="locate", unit="scan") as bar,
    ):

        def to_do() -> Iterator[tuple[ListedScan, str]]:
            for scan in scans:
                key = request.key(scan.path, scan.series)
                if is_done(request, table.get(scan.name, []), key):
                    count["skipped"] += 1
                    bar.update()
                else:
                    yield scan, key

        for number, ((scan, key), reading) in enumerate(read_ahead(request, to_do())):
            if number == 0 and not reading.done():
                request.locator.warm_up()  # while the first scan is read
            rows = table[scan.name] = locate_one(request, scan, key, reading.result)
            write_tables(request.folder, table)
            failed = rows[0].status == FAILED
            count["failed" if failed else "located"] += 1
            count["flagged"] += not failed and any(row.status != "ok" for row in rows)
            bar.update()
            if failed:
                bar.write(describe_failure(scan, rows[0].reason or ""), file=sys.stderr)
            if not padded and any(row.crop_fit == "padded" for row in rows):
                padded = True
                bar.write(padding_note(request.crop_size, scan.name), file=sys.stderr)
        sheet = write_sheet(request, table)
    every = tuple(row for scan in scans for row in table[scan.name])
    return LocateResult(**count, table=request.folder / TABLE, rows=every, sheet=sheet)


@contextmanager
def _locked_folder(request: LocateRequest, scans: Sequence[ListedScan]) -> Iterator[None]:
    """Lock the folder of results, and start its list of the files that jawloc wrote."""
    written = {
        *TABLES,
        CONTACT_SHEET,
        *(name for scan in scans for name in files_of(request, scan.name)),
    }
    with locked_output_folder(request.folder):
        own = own_names(request.folder, run=is_run_folder(request.folder))
        refuse_foreign(request.folder, "--output-dir", written.__contains__, own)
        make_folders(request)
        start_manifest(request.folder, own)
        yield


def read_ahead(
    request: LocateRequest, scans: Iterable[tuple[ListedScan, str]]
) -> Iterator[tuple[tuple[ListedScan, str], Future[ReadScan]]]:
    """Yield scans, with their keys, and what is read of each: the next one's while one is used."""
    reader, before = ThreadPoolExecutor(1, "reader"), None
    try:
        for scan in scans:
            reading = scan, reader.submit(read_downsampled, request, scan[0])
            if before is not None:
                yield before
            before = reading
        if before is not None:
            yield before
    finally:  # at an interruption too, at the end of the scan that is being read
        reader.shutdown(cancel_futures=True)


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
        with _writing():
            write_text(request.markups(listed.name), slicer_text(rows))
            write_scene(request, rows, located.windows, located.scan)
        return rows
    except _WritingError:
        with suppress(OSError):  # the list of files that is not shortened then is, by --resume
            remove_files(request, listed.name)
        raise
    except Exception as error:  # a night's list must not end with one scan, whatever is wrong
        with _writing():
            remove_files(request, listed.name)
        about["seconds"] = round(time.perf_counter() - started, 3)
        return [failed_row(listed.name, reason_of(error, listed.path.name), about)]


def read_downsampled(request: LocateRequest, listed: ListedScan) -> ReadScan:
    """Read a scan slab by slab, and average it onto the locator's grid."""
    started = time.perf_counter()
    scan = open_scan(listed.path, series=listed.series)
    placement = scan.read_placement()  # once, and where an error is the scan's
    scan = replace(scan, read_placement=lambda: placement)
    image = downsample_image(scan, request.locator.downsampled_size)
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
    crops = [read_crop(scan, window)[0] for window in windows] if wanted else []
    projections = silhouettes(image) if request.pictures else None
    return LocatedScan(scan, image, found, windows, crops, projections)


def write_object(
    request: LocateRequest, located: LocatedScan, index: int, files: Mapping[str, str | None]
) -> None:
    """Write the crop and the picture of one object."""
    crop_file, picture_file = files["crop_file"], files["picture_file"]
    found, window, grid = located.found[index], located.windows[index], located.scan.grid
    with _writing():
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


def write_tables(folder: Path, table: Table) -> None:
    """Write the tables of all scans, each whole or not at all."""
    rows = [row for of_scan in table.values() for row in of_scan]
    with _writing():
        write_text(folder / "locations.json", json_text(rows))
        write_text(folder / "napari_points.csv", napari_text(rows))
        write_text(folder / TABLE, csv_text(rows))  # the last, since it says what is done


def write_sheet(request: LocateRequest, table: Table) -> Path | None:
    """Write the page that shows every scan of the table; None without pictures."""
    if not request.pictures:
        return None
    with _writing():
        rows = [row for of_scan in table.values() for row in of_scan]
        return write_contact_sheet(request.folder, rows, request.model)


class _WritingError(OSError):
    """Results can't be written: unlike a scan that can't be read, this ends the work."""


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except DiskFullError as error:  # says which folder, and how much it needs
        raise _WritingError(error.errno, str(error)) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # which no other scan need be
            raise InputError(
                "the names of a scan's results must not be too long for the disk; they would be, "
                "of this scan or one of its objects"
            ) from error
        raise _WritingError(error.errno, error.strerror or str(error)) from error


@contextmanager
def _with_resume_hint(folder: Path, count: Mapping[str, int], total: int) -> Iterator[None]:
    try:
        yield
    except (_WritingError, KeyboardInterrupt) as error:
        ended = sum(n for what, n in count.items() if what != "flagged")
        done = f"{ended} of {total} scans are done; the same command with --resume"
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"interrupted; {done} goes on") from None
        raise OSError(
            f"{folder}: results can't be written ({error.strerror}); {done} goes on once they can"
        ) from error
