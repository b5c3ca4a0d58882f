"""TIFF: one 3-D file a scan, or a folder of 2-D slices. TIFF has no field for the z spacing."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Grid
from jawloc.scans.dicom.rescale import Rescale, with_rescale
from jawloc.scans.raw import read_raw, refuse_truncated
from jawloc.scans.scan import ScanFile, Slices, scan_id_of, slices_of_whole

TIFF_ENDINGS = (".tif", ".tiff")
_LINEAR = 0  # ImageJ's number of the calibration function c0 + c1 * stored value


@dataclass(frozen=True)
class _Layout:
    """The content of a TIFF's headers; `offset` is None unless the values are one raw block."""

    shape: tuple[int, ...]
    dtype: np.dtype  # in the file's byte order
    offset: int | None
    pages: int
    rescale: Rescale


def open_tiff(path: Path) -> ScanFile:
    """Open a 3-D TIFF.

    Values are read page by page, except from one page that holds a whole volume in compressed
    tiles: that is read whole, and stays in memory while the opened scan does.

    Where ImageJ or Fiji saved the file, its linear calibration of grey values is the scan's
    rescale: they save signed 16-bit scans as unsigned ones with an intercept of -32768.
    Raise InputError if the file is not TIFF, has colours, is not one volume of at least two
    slices, or has an invalid calibration.
    """
    layout = _read_layout(path)
    if len(layout.shape) != 3 or layout.shape[0] < 2:
        raise InputError(
            f"{path.name}: a TIFF scan must be one volume (z, y, x) of at least two slices; "
            f"its shape is {layout.shape}"
        )
    slices, rows, columns = layout.shape
    read: Slices
    if layout.offset is not None:
        read = partial(_read_block, path, layout)
    elif layout.pages == slices:
        read = partial(_read_pages, path)
    else:
        read = slices_of_whole(partial(_decode, path, None))
    dtype = layout.dtype.newbyteorder("=")
    scan = ScanFile(scan_id_of(path), path, Grid((slices, rows, columns)), dtype, read, None)
    return with_rescale(scan, [layout.rescale])


def open_tiff_folder(folder: Path, slices: Sequence[Path]) -> ScanFile:
    """Open 2-D TIFFs as one scan, in the natural order of their names (2 before 10).

    Raise InputError if there is only one slice, or one that is not 2-D or not like the first.
    """
    paths = sorted(slices, key=_natural_order)
    if len(paths) < 2:
        raise InputError(f"{folder.name}: a scan needs at least two slices; it has {len(paths)}")
    first = _read_layout(paths[0])
    if len(first.shape) != 2:
        raise InputError(
            f"{folder.name}: its TIFFs must be 2-D slices; {paths[0].name} has shape {first.shape}"
        )
    dtype = first.dtype.newbyteorder("=")
    every = [first.rescale]
    for path in paths[1:]:
        layout = _read_layout(path)
        every.append(layout.rescale)
        if layout.shape != first.shape or layout.dtype.newbyteorder("=") != dtype:
            raise InputError(
                f"{folder.name}: slices must be alike; {paths[0].name} is {dtype} "
                f"{first.shape}, {path.name} is {layout.dtype} {layout.shape}"
            )
    grid = Grid((len(paths), *first.shape))
    read = partial(_read_files, paths)
    return with_rescale(ScanFile(scan_id_of(folder), folder, grid, dtype, read, None), every)


def tiff_dimensions(path: Path) -> int:
    """Return how many dimensions a TIFF has; InputError where it isn't a readable one."""
    return len(_read_layout(path).shape)


def _natural_order(path: Path) -> tuple[list[Any], str]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], path.name


def _read_layout(path: Path) -> _Layout:
    import tifffile

    # tifffile raises a dozen types for damaged files
    damaged, broken = (
        as_input_error(f"{path.name}: the TIFF can't be read"),
        _refusing_broken_chain(path),
    )
    with damaged, broken, tifffile.TiffFile(path) as tiff:
        layout = _layout(tiff, path)
    if layout.dtype.kind not in "buif":
        raise InputError(f"{path.name}: grey values must be numbers; they are {layout.dtype}")
    if layout.offset is not None:
        end = layout.offset + math.prod(layout.shape) * layout.dtype.itemsize
        refuse_truncated(path, end, path.stat().st_size)
    return layout


def _layout(tiff: Any, path: Path) -> _Layout:
    if len(tiff.series) != 1:
        raise InputError(
            f"{path.name}: the pages of a TIFF must form one volume; they form {len(tiff.series)}"
        )
    series = tiff.series[0]
    if "S" in series.axes:
        raise InputError(
            f"{path.name}: pixels must be one grey value each; "
            f"the TIFF has colours, shape {series.shape} ({series.axes})"
        )
    dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
    rescale = _calibration(tiff.imagej_metadata or {}, dtype, path)
    return _Layout(tuple(series.shape), dtype, series.dataoffset, len(tiff.pages), rescale)


def _calibration(metadata: Mapping[str, Any], dtype: np.dtype, path: Path) -> Rescale:
    """Return the slope and intercept of ImageJ's calibration; 1 and 0 where it has no linear one.

    Its other functions are those of optical densities, and it applies none to floats.
    """
    if metadata.get("cf") != _LINEAR or dtype.kind == "f":
        return 1.0, 0.0
    intercept, slope = metadata.get("c0", math.nan), metadata.get("c1", math.nan)
    if not all(isinstance(v, int | float) and math.isfinite(v) for v in (slope, intercept)) or (
        slope == 0
    ):
        raise InputError(
            f"{path.name}: ImageJ's calibration c1 * stored value + c0 must be of finite numbers, "
            f"c1 not 0; they are {slope} and {intercept}"
        )
    return float(slope), float(intercept)


@contextmanager
def _refusing_broken_chain(path: Path) -> Iterator[None]:
    """Raise where tifffile only logs that the chain of pages breaks off, and reads fewer."""
    messages: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    broken = [message for message in messages if "page offset" in message]
    if broken:
        raise InputError(f"{path.name}: the file is truncated; {broken[0]}")


def _read_block(path: Path, layout: _Layout, start: int, stop: int) -> np.ndarray:
    shape = (stop - start, *layout.shape[1:])
    offset = (layout.offset or 0) + start * math.prod(layout.shape[1:]) * layout.dtype.itemsize
    return read_raw(path, offset, shape, layout.dtype)


def _read_pages(path: Path, start: int, stop: int) -> np.ndarray:
    slab = _decode(path, range(start, stop))
    return slab.reshape(stop - start, *slab.shape[-2:])


def _read_files(paths: Sequence[Path], start: int, stop: int) -> np.ndarray:
    return np.stack([_decode(path, None) for path in paths[start:stop]])


def _decode(path: Path, pages: range | None) -> np.ndarray:
    import tifffile

    # each codec raises its own types for damaged data
    with as_input_error(f"{path.name}: the TIFF's values can't be decoded"):
        values = tifffile.imread(path, key=pages)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
