"""Images and files of points -> labelled DICOMs: which points are of which image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, Triple
from jawloc.scans.convert import choose_spacing
from jawloc.scans.convert.conversion import (
    Conversion,
    carry_out,
    exists_otherwise,
    other_spacing,
    quantise,
    refuse_bad_spacing,
)
from jawloc.scans.dicom import open_dicom
from jawloc.scans.dicom.writing import refuse_too_large, write_labelled_dicom_slabs
from jawloc.scans.messages import names_shown
from jawloc.scans.pairs import LABEL_SUFFIXES, find_scans_in, images_by_id
from jawloc.scans.points import GivenPoint, PointFile, lie_in, place_points, scan_name
from jawloc.scans.points.slicer import read_fcsv, read_markups
from jawloc.scans.points.tables import read_table
from jawloc.scans.progress import Progress
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile, ScanPoint, as_compared, scan_ending
from jawloc.scans.text_input import real_path

READERS = {".mrk.json": read_markups, ".fcsv": read_fcsv, ".csv": read_table}
POINT_SUFFIXES = (*LABEL_SUFFIXES, "_points")  # of a name, after the image's


def holds_points(images: Path, labels: Path) -> bool:
    """Return whether labels are points: a file of points, or a folder with such files.

    In a folder that has masks as well, a .csv may be about anything and does not count. Raise
    InputError if it has masks and 3D Slicer's points.
    """
    if not labels.is_dir():
        return _point_ending(labels) is not None
    files = _point_files(labels)
    masks = [path for path in labels.iterdir() if path.is_dir() or scan_ending(path)]
    if real_path(images) == real_path(labels):
        masks = [path for path in masks if scan_name(path.name).endswith(LABEL_SUFFIXES[1:])]
    else:
        masks = [path for path in masks if not path.name.startswith(".")]
    if masks and (certain := [path for path in files if _point_ending(path) != ".csv"]):
        raise InputError(
            f"{labels}: masks and points must be in folders of their own; it has "
            f"{masks[0].name} and {certain[0].name}"
        )
    return bool(files) and not masks


def read_points(place: Path) -> PointFile:
    """Read a file of points, or all in a folder; InputError if one is malformed or all are empty.

    The points of a file that does not name their scans are of the scan that the file is named like.
    """
    points, skipped, columns = list[GivenPoint](), list[tuple[str, str]](), tuple[str, ...]()
    for path in _point_files(place) if place.is_dir() else [place]:
        ending = _point_ending(path) or ""
        try:
            found = READERS[ending](path, scan_name(path.name[: -len(ending)]))
        except OSError as error:
            raise InputError(f"{path.name}: it can't be read; {error.strerror}") from error
        points += found.points
        skipped += found.skipped
        columns = found.columns
    if not points and not skipped:
        raise InputError(f"{place}: a file of points must hold at least one; there is none")
    # the files in a folder are named like their scans
    return PointFile(tuple(points), tuple(skipped), () if place.is_dir() else columns)


def plan_point_conversion(
    images: Path,
    points: Path,
    out: Path,
    *,
    spacing_mm_zyx: Triple | None = None,
    series: Sequence[str] = (),
) -> list[Conversion]:
    """Pair images with points and list what will be converted; as `jawloc.scans.convert` does.

    Raises
    ------
    InputError
        If a folder does not exist or holds no scan, `out` is a file, two images have one scan id,
        a file of points is malformed, or no image at all has a point.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: the labelled DICOMs need a folder; this is a file")
    by_id = images_by_id(find_scans_in(images, "images"))
    given = read_points(points)
    own, without, strangers = _by_image(given, by_id)
    if not own and not without and given.columns:
        raise InputError(
            f"{points.name}: the column with the scans' names must be called scan, or the table "
            f"like its one scan; it has the columns {', '.join(given.columns)}, and no image in "
            f"{images} is called {scan_name(points.stem)}"
        )
    if not own and not without:
        raise InputError(
            f"{points}: points must name their scan, in a column or as the file's name; no image "
            f"in {images} is called {names_shown([*strangers])}"
        )
    plan = [_planned(i, by_id[i], own[i], without[i], out / f"{i}.dcm", points) for i in by_id]
    plan = [
        _checked(item, spacing_mm_zyx, series)
        for item in Progress(plan, desc="reading headers", unit="scan", brief=True)
    ]
    plan = _exchange_told(plan, series)
    for name, where in strangers.items():
        plan.append(
            Conversion(name, None, points, out / f"{name}.dcm", f"no image for {name} ({where})")
        )
    return sorted(plan, key=lambda item: item.scan_id)


def _by_image(
    given: PointFile, images: Iterable[str]
) -> tuple[dict[str, list[GivenPoint]], dict[str, list[str]], dict[str, str]]:
    """Return each image's points, why others are none, and where names of no image are."""
    owners = {
        as_compared(name) + suffix: name for suffix in reversed(POINT_SUFFIXES) for name in images
    }
    own, without, strangers = defaultdict(list), defaultdict(list), dict[str, str]()
    for point in given.points:
        if (owner := owners.get(as_compared(point.scan))) is not None:
            own[owner].append(point)
        else:
            strangers.setdefault(point.scan, point.source)
    for name, why in given.skipped:
        if (owner := owners.get(as_compared(name))) is not None:
            without[owner].append(why)
        else:
            strangers.setdefault(name, why)
    return own, without, strangers


def _planned(
    scan_id: str,
    image: Path,
    given: Sequence[GivenPoint],
    without: Sequence[str],
    target: Path,
    label: Path,
) -> Conversion:
    why = tuple(without)
    if not given:
        reason = f"no point for {scan_id}" + (f": {'; '.join(why)}" if why else "")
        return Conversion(scan_id, image, label, target, reason)
    return Conversion(scan_id, image, label, target, points=tuple(given), left_out=why)


def _checked(
    planned: Conversion, spacing_mm_zyx: Triple | None, series: Sequence[str]
) -> Conversion:
    """Return a planned conversion with the reason, if there is one, why it can't be done."""
    if planned.skip_reason is not None or planned.image is None:
        return planned
    try:
        image = open_scan(planned.image, series=series)
        points, notes = place_points(planned.points, image, spacing_mm_zyx)
        if planned.target.exists():
            reason = _already_there(planned, points, spacing_mm_zyx)
            return replace(planned, skip_reason=reason)
        refuse_too_large(planned.target, image.grid.shape_zyx, image.dtype)
    except InputError as error:
        return replace(planned, skip_reason=str(error))
    return replace(planned, notes=notes)


def _exchange_told(plan: Sequence[Conversion], series: Sequence[str]) -> list[Conversion]:
    """Return the plan; where exchanging z and x would put all points inside, reasons say so.

    One scan whose points are outside is no sign of that.
    """
    fits = {
        item.scan_id: fit
        for item in plan
        if item.skip_reason and (fit := _fits_exchanged(item, series)) is not None
    }
    if len(fits) < 2 or not all(fits.values()):
        return [*plan]
    hint = f"with z and x exchanged, the points of all {len(fits)} such scans would lie inside"
    return [
        replace(item, skip_reason=f"{item.skip_reason}; {hint}") if item.scan_id in fits else item
        for item in plan
    ]


def _fits_exchanged(item: Conversion, series: Sequence[str]) -> bool | None:
    """Return whether points outside a scan lie inside with z and x exchanged; None of others."""
    in_voxels = all(point.space == "voxels" for point in item.points)
    if item.image is None or item.target.exists() or not in_voxels:
        return None
    try:
        shape = open_scan(item.image, series=series).grid.shape_zyx
    except InputError:
        return None
    voxels = np.array([point.position_zyx for point in item.points]).reshape(-1, 3)
    return None if lie_in(voxels, shape) else lie_in(voxels[:, ::-1], shape)


def _already_there(
    planned: Conversion, points: Sequence[ScanPoint], spacing_mm_zyx: Triple | None
) -> str:
    """Return the skip reason of a labelled DICOM that exists, perhaps made otherwise."""
    target = planned.target
    if set(open_dicom(target).points) != set(points):
        return exists_otherwise(target, f"with other labels than {planned.points[0].source}")
    if other := other_spacing(target, spacing_mm_zyx):
        return exists_otherwise(target, other)
    return f"{target.name} exists"


def convert_points(
    conversion: Conversion,
    *,
    spacing_mm_zyx: Triple | None = None,
    series: Sequence[str] = (),
) -> Conversion:
    """Write one labelled DICOM with points in place of a mask, as `convert` does with a mask."""
    refuse_bad_spacing(spacing_mm_zyx)

    def write(image_path: Path, _: Path) -> tuple[str, ...]:
        return write_pointed(
            conversion.target,
            open_scan(image_path, series=series),
            conversion.points,
            spacing_mm_zyx=spacing_mm_zyx,
        )

    return carry_out(conversion, write)


def write_pointed(
    target: Path,
    image: ScanFile,
    given: Sequence[GivenPoint],
    *,
    spacing_mm_zyx: Triple | None = None,
    metadata: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[str, ...]:
    """Write an image with points as a labelled DICOM, slab by slab; return notes for the user.

    `metadata` is stored beside where image and points came from. Errors as `place_points`.
    """
    points, notes = place_points(given, image, spacing_mm_zyx)
    spacing, more = choose_spacing(image, image, spacing_mm_zyx)
    if image.is_labelled:
        more += (f"the labels in {image.path.name} were left out: points take their place",)
    quantisation, rounding = quantise(image)
    origin = {"image": image.path.name, "points": [point.source for point in given]}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_labelled_dicom_slabs(
        target,
        ((quantisation.stored(image.read_image(a, b)), None) for a, b in image.slab_ranges()),
        Grid(image.grid.shape_zyx, spacing),
        quantisation.dtype,
        metadata={**origin, **metadata},
        rescale=quantisation.rescale,
        placement=image.read_placement(),
        points=points,
    )
    return notes + more + rounding


def _point_ending(path: Path) -> str | None:
    return next((ending for ending in READERS if path.name.lower().endswith(ending)), None)


def _point_files(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if path.is_file() and _point_ending(path))
    return sorted(path for path in paths if not path.name.startswith("."))
