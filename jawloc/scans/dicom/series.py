"""A DICOM series: a folder with one file per slice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.misc import is_dicom

from jawloc.errors import InputError
from jawloc.geometry import Grid, Placement, Triple
from jawloc.scans.dicom import DICOM_ENDINGS, geometry, read_slices
from jawloc.scans.dicom.header import PixelLayout, header_value, pixel_layout, read_header
from jawloc.scans.dicom.rescale import rescales, with_rescale
from jawloc.scans.scan import ScanFile, scan_id_of, unplaced


@dataclass(frozen=True)
class _Slice:
    layout: PixelLayout
    header: Dataset

    @property
    def path(self) -> Path:
        return self.layout.path

    def value(self, keyword: str) -> Any:
        return header_value(self.header, keyword, self.path)

    def numbers(self, keyword: str) -> np.ndarray | None:
        value = self.value(keyword)
        if value is None:
            return None
        try:
            return np.atleast_1d(np.asarray(value, dtype=float))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{self.path.name}: {keyword} must be numbers; it is {value}"
            ) from error


def dicom_slices(paths: Sequence[Path]) -> list[Path]:
    """Return the DICOM files: those with its ending, or, if there is none, those that are DICOM."""
    named = [path for path in paths if path.suffix.lower() in DICOM_ENDINGS]
    return named or [path for path in paths if path.name != "DICOMDIR" and is_dicom(path)]


def open_dicom_series(folder: Path, paths: Sequence[Path]) -> ScanFile:
    """Open DICOM slices as one scan, sorted by position along their normal.

    Without positions they are sorted by InstanceNumber. The spacing along z is the distance
    between the positions, never the slice thickness alone. A rescale that differs from slice to
    slice is applied in reading, and the image is float32.

    Raise InputError if the files belong to several series, differ in shape, type, orientation or
    in-plane spacing, are unevenly spaced, or one is not a readable grey slice.
    """
    slices = [_open_slice(folder, path) for path in sorted(paths)]
    _refuse_several_series(folder, slices)
    if len(slices) < 2:
        raise InputError(f"{folder.name}: a scan needs at least two slices; it has {len(slices)}")
    for keyword in ("ImageOrientationPatient", "PixelSpacing"):
        _refuse_differing(folder, slices, keyword)
    first = slices[0].layout
    for own in (item.layout for item in slices):
        if (own.shape_zyx, own.dtype) != (first.shape_zyx, first.dtype):
            raise InputError(
                f"{folder.name}: slices must be alike; {first.path.name} is {first.dtype} "
                f"{first.shape_zyx[1:]}, {own.path.name} is {own.dtype} {own.shape_zyx[1:]}"
            )
    ordered, spacing = _in_order(folder, slices)
    grid = Grid((len(ordered), *first.shape_zyx[1:]), spacing)
    read = partial(_read_series, [item.layout for item in ordered])
    place = unplaced if spacing is None else partial(_placement, ordered[0], ordered[-1], folder)
    scan = ScanFile(scan_id_of(folder), folder, grid, first.dtype, read, None, place)
    return with_rescale(scan, [rescales(item.header, 1, item.path)[0] for item in ordered])


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
            str(item.value("SeriesInstanceUID")),
            str(item.value("SeriesDescription") or "no name"),
        )
        for item in slices
    )
    if len({uid for uid, _ in series}) > 1:
        names = ", ".join(
            f"{name} ({uid}, {count} slices)" for (uid, name), count in sorted(series.items())
        )
        raise InputError(f"{folder.name}: a folder must hold one DICOM series; it holds {names}")


def _refuse_differing(folder: Path, slices: Sequence[_Slice], keyword: str) -> None:
    first, *others = [item.numbers(keyword) for item in slices]
    for item, value in zip(slices[1:], others, strict=True):
        if value is None or first is None:
            alike = value is first
        else:  # NaN is refused with the spacing
            alike = value.shape == first.shape and np.allclose(
                value, first, atol=1e-4, equal_nan=True
            )
        if not alike:
            was, now = (None if v is None else v.tolist() for v in (first, value))
            raise InputError(
                f"{folder.name}: slices must have one {keyword}; it is "
                f"{was} in {slices[0].path.name} and {now} in {item.path.name}"
            )


def _in_order(folder: Path, slices: list[_Slice]) -> tuple[list[_Slice], Triple | None]:
    points = [item.value("ImagePositionPatient") for item in slices]
    if any(point is None for point in points):
        return _by_number(folder, slices), None
    depths = geometry.depths_along_normal(
        points, slices[0].value("ImageOrientationPatient"), folder
    )
    order = np.argsort(depths, kind="stable")
    step = geometry.even_distance_mm(depths[order], folder)
    in_plane = slices[0].numbers("PixelSpacing")
    spacing = None if in_plane is None else geometry.checked_spacing([step, *in_plane], folder)
    return [slices[n] for n in order], spacing


def _by_number(folder: Path, slices: list[_Slice]) -> list[_Slice]:
    numbers = [item.value("InstanceNumber") for item in slices]
    if None in numbers or len(set(numbers)) != len(numbers):
        raise InputError(
            f"{folder.name}: slices without positions need an InstanceNumber each to be sorted; "
            f"they have {len(set(numbers) - {None})} for {len(numbers)} slices"
        )
    return [slices[n] for n in np.argsort(np.asarray(numbers, dtype=float), kind="stable")]


def _placement(first: _Slice, last: _Slice, folder: Path) -> Placement | None:
    start, end = (item.numbers("ImagePositionPatient") for item in (first, last))
    return geometry.placement_of_slices(
        start, end, first.numbers("ImageOrientationPatient"), folder
    )


def _read_series(layouts: Sequence[PixelLayout], start: int, stop: int) -> np.ndarray:
    return np.concatenate([read_slices(layout, 1, 0, 1) for layout in layouts[start:stop]])
