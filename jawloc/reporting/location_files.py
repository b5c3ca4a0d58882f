"""What `jawloc locate` is asked for, and its files: their names, their folders, which are done."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import prod
from pathlib import Path

from jawloc.errors import InputError
from jawloc.geometry import Shape
from jawloc.inference.crop_files import CROP_ENDINGS
from jawloc.inference.exports import Row, read_rows
from jawloc.inference.locator import Locator
from jawloc.inference.models import ModelOptions
from jawloc.reporting.file_names import encoded, object_endings
from jawloc.scans.atomic import free_bytes, is_file_name, make_writable, refuse_links
from jawloc.scans.file_states import file_states
from jawloc.scans.manifest import forget_files, written_files

TABLE = "locations.csv"
TABLES = (TABLE, "locations.json", "napari_points.csv")
CONTACT_SHEET = "contact_sheet.html"
CROPS, MARKUPS, PICTURES, THUMBNAILS = "imgs", "markups", "pictures", "thumbnails"
SCENES = "scenes"
LEAST_FREE_BYTES = 4_000_000  # beside a crop: a picture, the tables twice

Table = dict[str, list[Row]]  # by the scan's name
Owner = tuple[str, str | None]  # the scan and the object that a file is of


@dataclass(frozen=True)
class LocateRequest:
    """Which model locates which objects, and what is written."""

    locator: Locator
    model: str  # what the user calls it
    digest: str  # a text that changes with its weights
    model_options: ModelOptions  # with the objects to locate, where not all
    folder: Path  # of the results
    crop_size: Shape  # (z, y, x) in voxels of the full-size scan
    crop_format: str | None = "tif"  # one of CROP_ENDINGS; None writes no crops
    pictures: bool = True
    # Files that earlier commands made (see `owners`), perhaps of other objects of the model.
    earlier: Mapping[str, Owner] = field(default_factory=dict)
    several: bool = False  # processes write into the folder at once

    def objects(self) -> tuple[str, ...]:
        """Return the names of the objects to locate."""
        return self.model_options.objects or tuple(self.locator.objects)

    def outputs(self, scan: str, object_name: str) -> dict[str, str | None]:
        """Return the names of an object's own files, relative to the folder, by their column."""
        for stem in self._stems(scan, object_name):
            crop = self.crop_format and f"{CROPS}/{stem}{CROP_ENDINGS[self.crop_format]}"
            files = {"crop_file": crop, "picture_file": f"{PICTURES}/{stem}.png"}
            own = {None, (scan, object_name)}
            if own.issuperset(self.earlier.get(f.casefold()) for f in files.values() if f):
                break
        return files if self.pictures else {**files, "picture_file": None}

    def _stems(self, scan: str, object_name: str) -> Iterator[str]:
        """Yield names for the files of an object of a scan, the best first."""
        yield f"{scan}{object_endings(self.objects())[object_name]}"
        yield from (f"{scan}{'@' * times}{encoded(object_name)}" for times in count(1))

    def markups(self, scan: str) -> Path:
        """Return the path of a scan's file for 3D Slicer."""
        return self.folder / MARKUPS / f"{scan}.mrk.json"

    def scene(self, scan: str) -> tuple[Path, dict[str, Path]]:
        """Return the paths of a scan's scene for 3D Slicer, and of each object's box in it."""
        folder = self.folder / SCENES
        boxes = {name: f"{scan}.box{n}.mrk.json" for n, name in enumerate(self.objects(), 1)}
        return folder / f"{scan}.mrml", {name: folder / file for name, file in boxes.items()}

    def key(self, path: Path, series: Sequence[str] = ()) -> str:
        """Return a text that changes with the scan's files, the model and what is written.

        `series` are the SeriesInstanceUIDs, one of which is the scan's in a folder of several.
        """
        about: list[object] = [
            self.digest,
            self.objects(),
            self.crop_size,
            self.crop_format,
            self.pictures,
        ]
        about += [str(path), file_states(path), *([list(series)] if series else [])]
        return hashlib.sha256(repr(about).encode()).hexdigest()[:16]


def earlier_rows(folder: Path, *, resume: bool, overwrite: bool) -> Table:
    """Return the results that a folder has already, by the scan's name.

    Raises InputError if there are any and neither `resume` nor `overwrite` says what to do.
    """
    path, table = folder / TABLE, Table()
    if not path.exists() or overwrite:
        return table
    if not resume:
        raise InputError(
            f"--output-dir: {folder} has results already; --resume goes on with them and skips "
            f"what is done, --overwrite replaces them, or choose another folder"
        )
    for row in read_rows(path):
        _refuse_stray(row, path)
        table.setdefault(row.scan, []).append(row)
    return table


def refuse_fewer_objects(request: LocateRequest, names: Iterable[str], table: Table) -> None:
    """Raise InputError if a scan's rows are of objects that aren't located now: they would go."""
    for name in names:
        known = {row.object for row in table.get(name, []) if row.object is not None}
        if lost := sorted(known.difference(request.objects())):
            raise InputError(
                f"--resume: {request.folder} has {', '.join(lost)} of {name}, and a scan's results "
                f"are replaced as a whole; received {', '.join(request.objects())}: name all of "
                f"them, or another --output-dir"
            )


def read_locations(place: Path) -> tuple[Path, list[Row]]:
    """Return the folder and the rows of results: of a folder, or of the table in it.

    Raises InputError if there is no such table, it is not as jawloc wrote it, it has no row, or two
    of one object of a scan.
    """
    path = place / TABLE if place.is_dir() else place
    if not path.is_file():
        raise InputError(
            f"{place}: it must be a folder of results of `jawloc locate`, or their {TABLE}; there "
            f"is no {path.name}"
        )
    rows = read_rows(path, "a review needs")
    for row in rows:
        _refuse_stray(row, path, "a review needs")
    if not rows:
        raise InputError(f"{path}: a review needs at least one located scan; there is none")
    (scan, name), times = Counter((row.scan, row.object) for row in rows).most_common(1)[0]
    if times > 1:  # review.csv has one decision for both
        raise InputError(
            f"{path}: a review needs one row for an object of a scan; {name!r} of {scan!r} has "
            f"{times}"
        )
    return path.parent, rows


def _refuse_stray(row: Row, path: Path, need: str = "--resume needs") -> None:
    """Raise InputError if a table names a scan or a file that would lie somewhere else."""
    named = {
        "scan": ("", row.scan),
        "crop_file": (f"{CROPS}/", row.crop_file),
        "picture_file": (f"{PICTURES}/", row.picture_file),
    }
    for column, (folder, text) in named.items():
        inside = text is None or (
            text.startswith(folder) and is_file_name(text.removeprefix(folder))
        )
        if not inside:
            raise InputError(
                f"{path}: {need} the table as jawloc wrote it, whose column {column} has "
                f"{f'files in {folder}' if folder else 'names of files'}; one is {text!r}"
            )


def owners(table: Table) -> dict[str, Owner]:
    """Return of which scan and object each file that a table names is, by its folded name."""
    return {
        file.casefold(): (row.scan, row.object)
        for rows in table.values()
        for row in rows
        for file in (row.crop_file, row.picture_file)
        if file is not None
    }


def make_folders(request: LocateRequest) -> None:
    """Make the folders of results.

    Raises InputError if they can't be written to, or the disk has no room for one scan's results.
    """
    folder = request.folder
    crops = 0 if request.crop_format is None else len(request.objects())
    needed = LEAST_FREE_BYTES + 2 * prod(request.crop_size) * crops
    if (free := free_bytes(folder)) < needed:
        raise InputError(
            f"--output-dir: {folder} needs room for at least one scan's results, "
            f"{needed / 1e6:.0f} MB; its disk has {free / 1e6:.0f} MB left"
        )
    names = [(MARKUPS, True), (SCENES, False), (CROPS, request.crop_format)]
    names += [(PICTURES, request.pictures), (THUMBNAILS, request.pictures)]
    refuse_links("--output-dir", *(folder / name for name, _ in names))
    rule = f"--output-dir: {folder} must be a folder that can be written to"
    for name in [name for name, wanted in names if wanted]:
        make_writable(folder / name, rule)


def is_done(request: LocateRequest, rows: Sequence[Row], key: str) -> bool:
    """Return whether rows are of the same scan and request, and all their files exist."""
    files = [f for row in rows for f in (row.crop_file, row.picture_file) if f is not None]
    return (
        tuple(row.object for row in rows) == request.objects()
        and all(row.key == key for row in rows)
        and request.markups(rows[0].scan).is_file()
        and all((request.folder / file).is_file() for file in files)
    )


def files_of(request: LocateRequest, scan: str) -> list[str]:
    """Return the names, relative to the folder, of a scan's own files."""
    scene, boxes = request.scene(scan)
    names = [
        f"{MARKUPS}/{scan}.mrk.json",
        *(f"{SCENES}/{p.name}" for p in (scene, *boxes.values())),
    ]
    for name in request.objects():
        files = request.outputs(scan, name)
        names += filter(None, files.values())
        if (picture := files["picture_file"]) is not None:
            names.append(thumbnail_of(picture))
    return names


def thumbnail_of(picture_file: str) -> str:
    """Return the name of the thumbnail beside a picture."""
    return f"{THUMBNAILS}/{picture_file.removeprefix(f'{PICTURES}/')}"


def remove_files(request: LocateRequest, scan: str) -> None:
    """Remove the files that the manifest has of a scan that failed: they show earlier results."""
    own = (written_files(request.folder) or set()).intersection(files_of(request, scan))
    for name in own:
        if os.path.lexists(request.folder / name):  # false also of a name that is too long
            (request.folder / name).unlink()
    if not request.several:  # which would drop the names that others add meanwhile
        forget_files(request.folder, own)


def rows_before(folder: Path) -> list[Row] | None:
    """Return the rows of a folder's table, also where they are to be replaced; None without one."""
    try:
        rows = read_rows(folder / TABLE)
        for row in rows:
            _refuse_stray(row, folder / TABLE)
    except (OSError, InputError):
        return None
    return rows


def remove_replaced(folder: Path, before: Sequence[Row], table: Table) -> None:
    """Remove what jawloc wrote for earlier rows, and what no row of the table has any more.

    A crop of another model must not lie among those of this one.
    """
    now = [row for rows in table.values() for row in rows]
    written = written_files(folder) or set()
    stale = written & (_files_of_rows(before) - _files_of_rows(now))
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    forget_files(folder, stale)


def _files_of_rows(rows: Iterable[Row]) -> set[str]:
    names, boxes = set[str](), Counter[str]()
    for row in rows:
        names.add(f"{MARKUPS}/{row.scan}.mrk.json")
        if row.object is not None:
            boxes[row.scan] += 1
            names.add(f"{SCENES}/{row.scan}.mrml")
            names.add(f"{SCENES}/{row.scan}.box{boxes[row.scan]}.mrk.json")
        names.update(filter(None, (row.crop_file, row.picture_file)))
        if row.picture_file is not None:
            names.add(thumbnail_of(row.picture_file))
    return names


def files_of_0_1_0(folder: Path) -> set[str]:
    """Return the names of the table in a folder and of all files that it names, if there is one."""
    if (rows := rows_before(folder)) is None:
        return set()
    later = (f"{THUMBNAILS}/", f"{SCENES}/")  # which it did not write
    files = {name for name in _files_of_rows(rows) if not name.startswith(later)}
    return {*TABLES, *files}
