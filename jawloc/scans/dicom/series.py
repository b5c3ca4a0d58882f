"""A DICOM series: a folder with one file per slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.misc import is_dicom

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, Triple
from jawloc.scans.dicom import DICOM_ENDINGS, read_slices
from jawloc.scans.dicom.header import (
    PixelLayout,
    header_value,
    pixel_layout,
    read_header,
)
from jawloc.scans.dicom.placement import placement_of_slices
from jawloc.scans.dicom.rescale import rescales, with_rescale
from jawloc.scans.dicom.spacing import checked_spacing, depths_along_normal, even_distance_mm
from jawloc.scans.scan import ScanFile, scan_id_of, unplaced


@dataclass(frozen=True)
class _Slice:
    layout: PixelLayout
    header: Dataset


def dicom_slices(paths: Sequence[Path]) -> list[Path]:
    """Pick the DICOM files: by their ending, or, where none has it, by what is in them."""
    named = [path for path in paths if path.suffix.lower() in DICOM_ENDINGS]
    return named or [path for path in paths if path.name != "DICOMDIR" and is_dicom(path)]


def open_dicom_series(folder: Path, paths: Sequence[Path]) -> ScanFile:
    """Open DICOM slices as one scan, sorted by position along their normal.

    Without positions they are sorted by InstanceNumber. The spacing along z is the distance
    between the positions, never the slice thickness alone. The rescale is the slices'; where
    it differs from slice to slice it is applied in reading, and the image is float32.

    Raises
    ------
    InputError
        If the files belong to several series, differ in shape, type, orientation or in-plane
        spacing, are unevenly spaced, or one is not a readable grey slice.
    """
    slices = [_open_slice(folder, path) for path in sorted(paths)]
    _refuse_several_series(folder, slices)
    if len(slices) < 2:
        raise InputError(f"{folder.name}: a scan needs at least two slices; it has {len(slices)}")
    for keyword in ("ImageOrientationPatient", "PixelSpacing"):
        _refuse_differing(folder, slices, keyword)
    first = slices[0].layout
    for item in slices:
        if (item.layout.shape_zyx, item.layout.dtype) != (first.shape_zyx, first.dtype):
            raise InputError(
                f"{folder.name}: slices must be alike; {first.path.name} is {first.dtype} "
                f"{first.shape_zyx[1:]}, {item.layout.path.name} is {item.layout.dtype} "
                f"{item.layout.shape_zyx[1:]}"
            )
    ordered, spacing = _in_order(folder, slices)
    grid = Grid((len(ordered), *first.shape_zyx[1:]), spacing)
    layouts = [item.layout for item in ordered]
    read = partial(_read_series, layouts)
    place = unplaced if spacing is None else partial(_placement, ordered[0], ordered[-1], folder)
    scan = ScanFile(scan_id_of(folder), folder, grid, first.dtype, read, None, place)
    every = [rescales(item.header, 1, item.layout.path)[0] for item in ordered]
    return with_rescale(scan, every)


def _open_slice(folder: Path, path: Path) -> _Slice:
    header = read_header(path)
    layout = pixel_layout(header, path)
    if layout.shape_zyx[0] != 1:
        raise InputError(
            f"{folder.name}: a series has one slice a file; {path.name} has "
            f"{layout.shape_zyx[0]} (open that file instead)"
        )
    return _Slice(layout, header)


def _refuse_several_series(folder: Path, slices: Sequence[_Slice]) -> None:
    series = Counter(
        (
            str(header_value(item.header, "SeriesInstanceUID", item.layout.path)),
            str(header_value(item.header, "SeriesDescription", item.layout.path) or "no name"),
        )
        for item in slices
    )
    if len({uid for uid, _ in series}) > 1:
        names = ", ".join(
            f"{name} ({uid}, {count} slices)" for (uid, name), count in sorted(series.items())
        )
        raise InputError(f"{folder.name}: a folder must hold one DICOM series; it holds {names}")


def _refuse_differing(folder: Path, slices: Sequence[_Slice], keyword: str) -> None:
    values = [_numbers(item, keyword) for item in slices]
    for item, value in zip(slices, values, strict=True):
        alike = (value is None) == (values[0] is None)
        if alike and value is not None and values[0] is not None:
            alike = value.shape == values[0].shape and np.allclose(
                value,
                values[0],
                atol=1e-4,
                equal_nan=True,  # NaN is refused with the spacing
            )
        if not alike:
            raise InputError(
                f"{folder.name}: slices must have one {keyword}; it is "
                f"{_listed(values[0])} in {slices[0].layout.path.name} and {_listed(value)} in "
                f"{item.layout.path.name}"
            )


def _listed(value: np.ndarray | None) -> list[float] | None:
    return None if value is None else value.tolist()


def _numbers(item: _Slice, keyword: str) -> np.ndarray | None:
    value = header_value(item.header, keyword, item.layout.path)
    if value is None:
        return None
    try:
        return np.atleast_1d(np.asarray(value, dtype=float))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{item.layout.path.name}: {keyword} must be numbers; it is {value}"
        ) from error


def _in_order(folder: Path, slices: list[_Slice]) -> tuple[list[_Slice], Triple | None]:
    points = [
        header_value(item.header, "ImagePositionPatient", item.layout.path) for item in slices
    ]
    if any(point is None for point in points):
        return _by_number(folder, slices), None
    axes = header_value(slices[0].header, "ImageOrientationPatient", slices[0].layout.path)
    depths = depths_along_normal(points, axes, folder)
    order = np.argsort(depths, kind="stable")
    step = even_distance_mm(depths[order], folder)
    in_plane = _numbers(slices[0], "PixelSpacing")
    spacing = None if in_plane is None else checked_spacing([step, *in_plane], folder)
    return [slices[n] for n in order], spacing


def _by_number(folder: Path, slices: list[_Slice]) -> list[_Slice]:
    numbers = [header_value(item.header, "InstanceNumber", item.layout.path) for item in slices]
    if None in numbers or len(set(numbers)) != len(numbers):
        raise InputError(
            f"{folder.name}: slices without positions need an InstanceNumber each to be sorted; "
            f"they have {len(set(numbers) - {None})} for {len(numbers)} slices"
        )
    return [slices[n] for n in np.argsort(np.asarray(numbers, dtype=float), kind="stable")]


def _placement(first: _Slice, last: _Slice, folder: Path) -> Placement | None:
    start, end = (_numbers(item, "ImagePositionPatient") for item in (first, last))
    axes = _numbers(first, "ImageOrientationPatient")
    return placement_of_slices(start, end, axes, folder)


def _read_series(layouts: Sequence[PixelLayout], start: int, stop: int) -> np.ndarray:
    return np.concatenate([read_slices(layout, 1, 0, 1) for layout in layouts[start:stop]])
