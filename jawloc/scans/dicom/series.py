"""A DICOM series: a folder with one file per slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, Shape, Triple
from jawloc.scans.dicom import geometry, open_dicom, read_slices, resolve_inversion
from jawloc.scans.dicom.folder import DicomFile, choose_series, without_localisers
from jawloc.scans.dicom.header import PixelLayout, pixel_layout, refuse_truncated_elements
from jawloc.scans.dicom.rescale import rescales
from jawloc.scans.messages import names_shown, tell
from jawloc.scans.rescale import Rescale, with_rescale
from jawloc.scans.scan import ScanFile, scan_id_of, unplaced
from jawloc.scans.spacing import checked_spacing

# Largest difference of a value that all slices must share.
_TOLERANCES = {"ImageOrientationPatient": 1e-3, "PixelSpacing": 1e-4}


@dataclass(frozen=True)
class _Slice(DicomFile):
    layout: PixelLayout
    rescale: Rescale


def open_dicom_series(
    folder: Path, paths: Sequence[Path], *, named: Sequence[str] = (), is_label: bool = False
) -> ScanFile:
    """Open DICOM slices as one scan, sorted by position along their normal.

    Without positions they are sorted by InstanceNumber. The spacing along z is the distance
    between the positions, never the slice thickness alone. A rescale that differs from slice to
    slice is applied in reading, and the image is float32. Other series, localisers and exact
    copies of slices are left out, which warnings say.

    Parameters
    ----------
    named : SeriesInstanceUIDs, of which the folder must hold exactly one; none: the folder must
        have one series, or only one that may be a volume
    is_label : whether the values are labels, which MONOCHROME1 doesn't invert

    Raises
    ------
    InputError
        If it isn't clear which series is meant, or its slices differ in shape, type, orientation
        or in-plane spacing, are unevenly spaced, or one is not a readable grey slice.
    """
    series = choose_series(folder, paths, named, is_label=is_label)
    if series.is_multi_frame:
        scan = open_dicom(series.files[0].path, is_label=is_label)
        return replace(scan, scan_id=scan_id_of(folder))
    slices = [_slice(file) for file in without_localisers(folder, series.files)]
    for keyword, tolerance in _TOLERANCES.items():
        _refuse_differing(folder, slices, keyword, tolerance)
    _refuse_unlike(folder, slices)
    ordered, spacing = _in_order(folder, slices)
    first = resolve_inversion(ordered[0].layout, folder, is_label=is_label)
    grid = Grid((len(ordered), *first.shape_zyx[1:]), spacing)
    layouts = [replace(item.layout, inverted=first.inverted) for item in ordered]
    place = unplaced if spacing is None else partial(_placement, ordered[0], ordered[-1], folder)
    read = partial(_read_series, layouts)
    scan = ScanFile(scan_id_of(folder), folder, grid, first.dtype, read, None, place)
    return with_rescale(scan, [item.rescale for item in ordered])


def _slice(file: DicomFile) -> _Slice:
    refuse_truncated_elements(file.header, file.path)
    layout = pixel_layout(file.header, file.path)
    return _Slice(file.path, file.header, layout, rescales(file.header, 1, file.path)[0])


def _refuse_unlike(folder: Path, slices: Sequence[_Slice]) -> None:
    first = slices[0].layout
    for own in (item.layout for item in slices):
        if _form(own) != _form(first):
            raise InputError(f"{folder.name}: slices must be alike; {_kind(first)}, {_kind(own)}")


def _form(layout: PixelLayout) -> tuple[Shape, np.dtype, bool]:
    return layout.shape_zyx, layout.dtype, layout.inverted


def _kind(layout: PixelLayout) -> str:
    colours = " MONOCHROME1" if layout.inverted else ""
    return f"{layout.path.name} is {layout.dtype}{colours} {layout.shape_zyx[1:]}"


def _refuse_differing(
    folder: Path, slices: Sequence[_Slice], keyword: str, tolerance: float
) -> None:
    first, *others = [item.numbers(keyword) for item in slices]
    for item, value in zip(slices[1:], others, strict=True):
        if value is None or first is None:
            alike = value is first
        else:  # NaN is refused with the spacing
            alike = value.shape == first.shape and np.allclose(
                value, first, atol=tolerance, equal_nan=True
            )
        if not alike:
            was, now = (None if v is None else v.tolist() for v in (first, value))
            raise InputError(
                f"{folder.name}: slices must have one {keyword}; it is "
                f"{was} in {slices[0].path.name} and {now} in {item.path.name}"
            )


def _in_order(folder: Path, slices: Sequence[_Slice]) -> tuple[list[_Slice], Triple | None]:
    """Return the slices sorted, without copies, and their spacing; None without positions."""
    points = [item.value("ImagePositionPatient") for item in slices]
    unknown = [item.path.name for item, point in zip(slices, points, strict=True) if point is None]
    if len(unknown) == len(slices):
        return _by_number(folder, slices), None
    if unknown:
        raise InputError(
            f"{folder.name}: all slices or none must have an ImagePositionPatient; "
            f"{names_shown(unknown)} of {len(slices)} have none"
        )
    axes = slices[0].value("ImageOrientationPatient")
    depths = geometry.depths_along_normal(points, axes, folder)
    order = np.argsort(depths, kind="stable")
    least = geometry.one_position_mm(depths)
    kept = _without_copies(folder, slices, order.tolist(), depths, least)
    in_plane = slices[0].numbers("PixelSpacing")
    step = geometry.even_distance_mm(
        depths[kept], [points[n] for n in kept], [slices[n].path.name for n in kept], folder
    )
    spacing = None if in_plane is None else checked_spacing([step, *in_plane], folder)
    return [slices[n] for n in kept], spacing


def _by_number(folder: Path, slices: Sequence[_Slice]) -> list[_Slice]:
    found = [item.numbers("InstanceNumber") for item in slices]
    given = [number.item() for number in found if number is not None and number.size == 1]
    if len(given) != len(slices) or not np.isfinite(given).all():
        raise InputError(
            f"{folder.name}: slices without positions need an InstanceNumber each to be sorted; "
            f"they have {len(given)} for {len(slices)} slices"
        )
    order = np.argsort(given, kind="stable")
    kept = _without_copies(folder, slices, order.tolist(), np.asarray(given), 0.0)
    steps = np.diff(np.asarray(given)[kept])
    if (uneven := steps != np.median(steps)).any():
        before, after = (slices[kept[int(uneven.argmax()) + n]] for n in (0, 1))
        raise InputError(
            f"{folder.name}: InstanceNumbers of slices without positions must rise in even steps; "
            f"{before.path.name} has {before.value('InstanceNumber')}, the next, "
            f"{after.path.name}, {after.value('InstanceNumber')}"
        )
    return [slices[n] for n in kept]


def _without_copies(
    folder: Path, slices: Sequence[_Slice], order: Sequence[int], places: np.ndarray, least: float
) -> list[int]:
    """Return which slices, in order, are no exact copies; at least two, each at its own place."""
    kept, copies = list(order[:1]), []
    for number in order[1:]:
        if abs(places[number] - places[kept[-1]]) > least:
            kept.append(number)
        elif _is_copy(slices[number], slices[kept[-1]]):
            copies.append(slices[number].path.name)
        else:
            both = sorted(slices[n].path.name for n in (kept[-1], number))
            raise InputError(
                f"{folder.name}: slices must be evenly spaced, each with a position (or an "
                f"InstanceNumber each) of its own; {both[0]} and {both[1]} share one and differ"
            )
    if copies:
        tell(f"{folder.name}: exact copies of slices are left out: {names_shown(copies)}")
    if len(kept) < 2:
        raise InputError(f"{folder.name}: a scan needs at least two slices; it has {len(kept)}")
    return kept


def _is_copy(one: _Slice, other: _Slice) -> bool:
    own, others = (read_slices(item.layout, 1, 0, 1) for item in (one, other))
    return one.rescale == other.rescale and np.array_equal(own, others)


def _placement(first: _Slice, last: _Slice, folder: Path) -> Placement | None:
    start, end = (item.numbers("ImagePositionPatient") for item in (first, last))
    return geometry.placement_of_slices(
        start, end, first.numbers("ImageOrientationPatient"), folder
    )


def _read_series(layouts: Sequence[PixelLayout], start: int, stop: int) -> np.ndarray:
    return np.concatenate([read_slices(layout, 1, 0, 1) for layout in layouts[start:stop]])
