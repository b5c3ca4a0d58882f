"""TIFF: a volume in one file, page by page in the order that the file's metadata gives."""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Grid, Triple
from jawloc.scans.opening import open_alone, open_binary
from jawloc.scans.raw import read_raw, refuse_truncated
from jawloc.scans.rescale import Rescale, with_rescale
from jawloc.scans.scan import ScanFile, Slices, scan_id_of, slices_of_whole
from jawloc.scans.tiff_metadata import spacing_shown_by_itk, voxel_size

TIFF_ENDINGS = (".tif", ".tiff")
_LINEAR = 0  # ImageJ's number of the calibration function c0 + c1 * stored value
_HEADER_BYTES = 8
_NO_COMPRESSION = 1
_LARGEST_DECODED = 2**31  # bytes of what is decoded at once: a page, or a volume in 3-D tiles
_MOST_CHANNELS = 7  # of ImageJ; tifffile calls the slices of a volume so, unless axes are named
_LARGEST_INFLATION = 10_000  # decoded bytes a byte of the file, where one page has a whole volume


@dataclass(frozen=True)
class TiffLayout:
    """The content of a TIFF's headers."""

    shape: tuple[int, ...]  # (z, y, x), or (y, x) of a single slice
    axes: str  # a letter a dimension, as the file has them
    dtype: np.dtype  # in the file's byte order
    offset: int | None  # of the first byte; None unless the values are one raw block
    pages: tuple[int, ...] | None  # that hold the slices along z; None where one page holds all
    rescale: Rescale
    white: float | None  # the stored value of black, where 0 is white; None where 0 is black
    spacing_mm_zyx: tuple[float | None, float, float] | None  # z is None where no field has it
    shown_spacing_mm_zyx: Triple  # by ITK


def open_tiff(path: Path) -> ScanFile:
    """Open a 3-D TIFF: plain pages, ImageJ's stacks or OME-TIFF.

    Pages are read in the order of the file's metadata, and axes in another order than z, y, x are
    turned. Values are read page by page, except from one page that holds a whole volume in
    compressed tiles: that is read whole, and stays in memory while the opened scan does.

    The spacing is that of ImageJ's or OME's metadata. Where ImageJ or Fiji saved the file, its
    linear calibration of grey values is the scan's rescale: they save signed 16-bit scans as
    unsigned ones with an intercept of -32768. Where 0 is white (photometric MINISWHITE), grey
    values are inverted, so that bright voxels have high ones; not so in ImageJ's own files,
    which keep the values and only show them with an inverted palette.

    Raises
    ------
    InputError
        If the file is not TIFF, has colours, is not one volume of at least two slices, has an
        invalid calibration, is truncated, or has a page of 2 GB and more.
    """
    layout = read_layout(path)
    if len(layout.shape) != 3 or layout.shape[0] < 2 or _has_channels(layout):
        raise InputError(
            f"{path.name}: a TIFF scan must be one volume (z, y, x) of at least two slices; "
            f"its shape is {layout.shape} (axes {layout.axes})"
        )
    z, y, x = layout.spacing_mm_zyx or (None, 1.0, 1.0)
    spacing = None if z is None else (z, y, x)
    grid = Grid((layout.shape[0], layout.shape[1], layout.shape[2]), spacing)
    if layout.white is not None:
        warnings.warn(
            f"{path.name}: 0 is white (photometric MINISWHITE); the grey values are inverted",
            stacklevel=1,
        )
    dtype = layout.dtype.newbyteorder("=")
    scan = ScanFile(scan_id_of(path), path, grid, dtype, _slices(path, layout), None)
    scan = replace(scan, shown_spacing_mm_zyx=layout.shown_spacing_mm_zyx)
    return with_rescale(scan, [layout.rescale])


def _has_channels(layout: TiffLayout) -> bool:
    return "C" in layout.axes and layout.shape[layout.axes.index("C")] <= _MOST_CHANNELS


def read_layout(path: Path) -> TiffLayout:
    """Read a TIFF's headers; InputError where they are damaged, or are not of grey values."""
    import tifffile

    # tifffile raises a dozen types for damaged files
    damaged = as_input_error(f"{path.name}: the TIFF can't be read")
    broken = _refusing_broken_chain(path)
    with damaged, broken, open_alone(path) as file, tifffile.TiffFile(file) as tiff:
        layout = _layout(tiff, path)
    if layout.dtype.kind not in "buif":
        raise InputError(f"{path.name}: grey values must be numbers; they are {layout.dtype}")
    if layout.offset is not None:
        if not isinstance(layout.offset, int) or layout.offset < _HEADER_BYTES:
            raise InputError(
                f"{path.name}: the values must begin after the header; they begin at byte "
                f"{layout.offset}"
            )
        end = layout.offset + math.prod(layout.shape) * layout.dtype.itemsize
        refuse_truncated(path, end, path.stat().st_size)
    return layout


def decode(path: Path, layout: TiffLayout, pages: tuple[int, ...] | None) -> np.ndarray:
    """Read the values of some pages, or of the whole file, along the file's axes.

    They are inverted where 0 is white. Raise InputError if they can't be decoded.
    """
    import tifffile

    # each codec raises its own types for damaged data
    damaged = as_input_error(f"{path.name}: the TIFF's values can't be decoded")
    with damaged, _refusing_broken_chain(path), open_alone(path) as file:
        values = tifffile.imread(file, key=pages)
    return _black_is_0(values.astype(values.dtype.newbyteorder("="), copy=False), layout.white)


def _black_is_0(values: np.ndarray, white: float | None) -> np.ndarray:
    if white is None:
        return values
    return ~values if values.dtype.kind == "b" else np.array(white, values.dtype) - values


def _layout(tiff: Any, path: Path) -> TiffLayout:
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
    pages = _pages_along_z(tiff, series, path)
    _refuse_large_or_cut(tiff, series, pages, path)
    metadata = tiff.imagej_metadata or {}
    dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
    white = _top(series.keyframe, dtype) if not tiff.is_imagej else None
    order = _order(series.axes)
    return TiffLayout(
        tuple(series.shape[axis] for axis in order),
        series.axes,
        dtype,
        series.dataoffset,
        pages,
        _calibration(metadata, dtype, path),
        white,
        voxel_size(tiff, path),
        spacing_shown_by_itk(tiff),
    )


def _order(axes: str) -> tuple[int, ...]:
    """Return the positions of z, y, x among a file's axes; where it doesn't name them, as is."""
    named = sorted(axes) in (["X", "Y", "Z"], ["X", "Y"])
    return tuple(axes.index(a) for a in "ZYX" if a in axes) if named else tuple(range(len(axes)))


def _pages_along_z(tiff: Any, series: Any, path: Path) -> tuple[int, ...] | None:
    """Return the file's pages in the order of the slices; None where one page has several."""
    joined = tiff.is_ome or series.is_multifile
    if joined and any(page and page.parent is not tiff for page in series):
        raise InputError(f"{path.name}: a TIFF must be one file; its slices are in several")
    if tiff.is_ome and any(page is None for page in series):
        raise InputError(f"{path.name}: each slice of an OME-TIFF needs a page; some have none")
    if len(series.shape) != 3 or len(series) != series.shape[0] or series.axes[-2:] != "YX":
        return None
    if not tiff.is_ome:
        return tuple(range(len(tiff.pages))) if len(tiff.pages) == len(series) else None
    return tuple(page.index for page in series)


def _refuse_large_or_cut(tiff: Any, series: Any, pages: tuple[int, ...] | None, path: Path) -> None:
    """Raise InputError before memory is taken for what a small file can't hold."""
    page, size = series.keyframe, tiff.filehandle.size
    if series.dataoffset is not None:
        return
    if page.compression == _NO_COMPRESSION:
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
        refuse_truncated(path, max(ends, default=0), size)
        packed = page.is_tiled or page.bitspersample % 8  # other bytes than the pixels' own
        if not packed and sum(page.databytecounts) != page.nbytes:
            raise InputError(
                f"{path.name}: an uncompressed page must have as many bytes as its pixels need, "
                f"{page.nbytes}; it has {sum(page.databytecounts)}"
            )
    whole = page.nbytes if pages or len(series.shape) == 2 else series.nbytes
    if whole >= _LARGEST_DECODED or (pages is None and whole > _LARGEST_INFLATION * size):
        raise InputError(
            f"{path.name}: what is decoded at once must be less than 2 GB, and fit the file's "
            f"{size} bytes; its shape is {series.shape}, {whole} bytes"
        )


def _top(page: Any, dtype: np.dtype) -> float | None:
    """Return the stored value of black where 0 is white: the largest of the page's bits."""
    photometric = page.tags.get("PhotometricInterpretation")
    if photometric is None or photometric.value != 0:
        return None
    if dtype.kind == "f":
        return 0.0  # there is no largest value, and only the order matters
    return -1 if dtype.kind == "i" else 2**page.bitspersample - 1


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


class _Messages(logging.Filter):
    """Keeps what tifffile logs while scans are read, each thread's for itself."""

    def __init__(self) -> None:
        super().__init__()
        self._of_threads: dict[int, list[str]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        own = self._of_threads.get(threading.get_ident())
        if own is not None:
            own.append(record.getMessage())
        return not self._of_threads  # tifffile decodes in threads of its own, too

    @contextmanager
    def collected(self) -> Iterator[list[str]]:
        """Yield the list of this thread's messages; not to be nested."""
        own = self._of_threads[threading.get_ident()] = []
        try:
            yield own
        finally:
            del self._of_threads[threading.get_ident()]


_MESSAGES = _Messages()
logging.getLogger("tifffile").addFilter(_MESSAGES)


@contextmanager
def _refusing_broken_chain(path: Path) -> Iterator[None]:
    """Raise where tifffile only logs that the chain of pages breaks off, and reads fewer.

    What else it logs, of tags that it leaves out, is not printed.
    """
    with _MESSAGES.collected() as messages:
        yield
    broken = [message for message in messages if "page offset" in message]
    if broken:
        raise InputError(f"{path.name}: the file is truncated; {broken[0]}")


def _slices(path: Path, layout: TiffLayout) -> Slices:
    order = _order(layout.axes)
    if layout.offset is not None:
        turned = order != tuple(range(len(order)))
        read = _read_turned_block if turned else _read_block
        return partial(read, path, layout)
    if layout.pages is not None:
        return partial(_read_pages, path, layout)
    return slices_of_whole(lambda: decode(path, layout, None).transpose(order))


def _read_block(path: Path, layout: TiffLayout, start: int, stop: int) -> np.ndarray:
    shape = (stop - start, *layout.shape[1:])
    offset = (layout.offset or 0) + start * math.prod(layout.shape[1:]) * layout.dtype.itemsize
    return _black_is_0(read_raw(path, offset, shape, layout.dtype), layout.white)


def _read_turned_block(path: Path, layout: TiffLayout, start: int, stop: int) -> np.ndarray:
    """Read slices (z) of a raw block whose axes are in another order, in the system's pages."""
    order = _order(layout.axes)
    shape = tuple(layout.shape[order.index(axis)] for axis in range(3))
    changed = as_input_error(
        f"{path.name}: the file changed while it was read", OSError, ValueError
    )
    with changed, open_binary(path) as file:
        block = np.memmap(file, layout.dtype, "r", layout.offset or 0, shape)
    slab = np.ascontiguousarray(block.transpose(order)[start:stop])
    return _black_is_0(slab.astype(slab.dtype.newbyteorder("="), copy=False), layout.white)


def _read_pages(path: Path, layout: TiffLayout, start: int, stop: int) -> np.ndarray:
    slab = decode(path, layout, (layout.pages or ())[start:stop])
    return slab.reshape(stop - start, *slab.shape[-2:])
