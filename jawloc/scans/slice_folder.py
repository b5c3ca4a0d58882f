"""A folder of 2-D slices as one scan: TIFF, BMP or PNG, also as Bruker's SkyScan writes them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Grid, Triple
from jawloc.scans.dicom.geometry import checked_spacing
from jawloc.scans.dicom.rescale import Rescale, with_rescale
from jawloc.scans.scan import ScanFile, scan_id_of
from jawloc.scans.tiff import TIFF_ENDINGS, TiffLayout, decode, read_layout

PICTURE_ENDINGS = (".bmp", ".png")
SLICE_ENDINGS = (*TIFF_ENDINGS, *PICTURE_ENDINGS)
# SkyScan's reconstructed slices; x_rec_spr.bmp beside them is a projection
_RECONSTRUCTED = re.compile(r".*_rec_?\d{4,}\.(?:tiff?|bmp|png)", re.IGNORECASE)
_PIXEL_SIZE = re.compile(r"^\s*Image Pixel Size \(um\)\s*=\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_LARGEST_LOG = 2**20  # bytes
_SAME = 1e-3  # relative difference of two voxel sizes that count as one


class _Slice(NamedTuple):
    path: Path
    shape: tuple[int, ...]  # (y, x), or more of a TIFF that is no slice
    dtype: np.dtype  # in native byte order
    layout: TiffLayout | None  # None of a BMP or PNG

    @property
    def rescale(self) -> Rescale:
        return (1.0, 0.0) if self.layout is None else self.layout.rescale


def picture_slices(files: Sequence[Path]) -> list[Path]:
    """Return the slices among a folder's files: TIFFs, else BMPs, else PNGs.

    Where SkyScan's reconstructed slices (`*_rec0001.tif`) are there, only those.
    """
    found = [path for path in files if path.suffix.lower() in SLICE_ENDINGS]
    found = [path for path in found if _RECONSTRUCTED.fullmatch(path.name)] or found
    for endings in (TIFF_ENDINGS, *((ending,) for ending in PICTURE_ENDINGS)):
        alike = [path for path in found if path.suffix.lower() in endings]
        if alike:
            return alike
    return []


def is_slice(path: Path) -> bool:
    """Return whether a TIFF, BMP or PNG is 2-D; InputError where it isn't a readable one."""
    return len(_read_header(path).shape) == 2


def open_slice_folder(folder: Path, slices: Sequence[Path]) -> ScanFile:
    """Open 2-D slices as one scan, in the natural order of their names (2 before 10).

    The voxel size is that of SkyScan's log beside them (`Image Pixel Size (um)`), else of the
    slices' own metadata where these give all three sizes.

    Raises
    ------
    InputError
        If there is only one slice, or one that is not 2-D, of one grey value a pixel, and like
        the first; or if a size is not positive and finite.
    """
    paths = sorted(slices, key=_natural_order)
    if len(paths) < 2:
        raise InputError(f"{folder.name}: a scan needs at least two slices; it has {len(paths)}")
    every = [_read_header(path) for path in paths]
    first = every[0]
    if len(first.shape) != 2:
        raise InputError(
            f"{folder.name}: its slices must be 2-D; {first.path.name} has shape {first.shape}"
        )
    for other in every[1:]:
        if (other.shape, other.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"{folder.name}: slices must be alike; {first.path.name} is {first.dtype} "
                f"{first.shape}, {other.path.name} is {other.dtype} {other.shape}"
            )
    if first.layout is not None and first.layout.white is not None:
        warnings.warn(
            f"{folder.name}: 0 is white (photometric MINISWHITE); the grey values are inverted",
            stacklevel=1,
        )
    grid = Grid((len(paths), first.shape[0], first.shape[1]), _voxel_size(folder, first))
    read = partial(_read, every)
    scan = ScanFile(scan_id_of(folder), folder, grid, first.dtype, read, None)
    return with_rescale(scan, [one.rescale for one in every])


def _natural_order(path: Path) -> tuple[list[Any], str]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if n % 2 else part for n, part in enumerate(parts)], path.name


def _read_header(path: Path) -> _Slice:
    if path.suffix.lower() in TIFF_ENDINGS:
        layout = read_layout(path)
        return _Slice(path, layout.shape, layout.dtype.newbyteorder("="), layout)
    with as_input_error(f"{path.name}: the picture can't be read"), _picture(path) as picture:
        dtypes = {"1": bool, "L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16}
        if picture.mode not in dtypes and not _is_grey_palette(picture):
            raise InputError(
                f"{path.name}: pixels must be one grey value each; the picture's are {picture.mode}"
            )
        dtype = np.dtype(dtypes.get(picture.mode, np.uint8))
        return _Slice(path, (picture.height, picture.width), dtype, None)


def _picture(path: Path) -> Any:
    from PIL import Image

    return Image.open(path, formats=[path.suffix[1:].upper()])


def _is_grey_palette(picture: Any) -> bool:
    colours = np.array(picture.getpalette() or [], int).reshape(-1, 3)
    return picture.mode == "P" and bool((colours == colours[:, :1]).all())


def _read(slices: Sequence[_Slice], start: int, stop: int) -> np.ndarray:
    return np.stack([_read_slice(one) for one in slices[start:stop]])


def _read_slice(one: _Slice) -> np.ndarray:
    if one.layout is not None:
        values = decode(one.path, one.layout, None)
    else:
        problem = f"{one.path.name}: the picture can't be decoded"
        with as_input_error(problem), _picture(one.path) as picture:
            grey = picture.convert("L") if picture.mode == "P" else picture
            values = np.asarray(grey).astype(one.dtype)
    if (values.shape, values.dtype) != (one.shape, one.dtype):
        raise InputError(
            f"{one.path.name}: the file changed while it was read; it was {one.dtype} {one.shape}, "
            f"it is {values.dtype} {values.shape}"
        )
    return values


def _voxel_size(folder: Path, first: _Slice) -> Triple | None:
    """Return the size by the log beside the slices, else by the first one's metadata."""
    own = None if first.layout is None else first.layout.spacing_mm_zyx
    sizes = _logged_sizes(folder)
    if not sizes:
        return None if own is None or own[0] is None else (own[0], own[1], own[2])
    (log, size), *others = sizes.items()
    others += [] if own is None else [(first.path.name, own[2])]
    for name, other in others:
        if abs(other - size) > _SAME * size:
            warnings.warn(
                f"{folder.name}: the voxel size is {size:g} mm by {log}; {name} says {other:g} mm",
                stacklevel=1,
            )
    return checked_spacing([size] * 3, folder)


def _logged_sizes(folder: Path) -> dict[str, float]:
    """Return the pixel sizes in mm that SkyScan's logs in a folder give, by the logs' names."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() == ".log" and path.is_file():
            problem = f"{path.name}: the log can't be read"
            with as_input_error(problem, OSError), path.open("rb") as file:
                match = _PIXEL_SIZE.search(file.read(_LARGEST_LOG).decode("latin-1"))
            if match is not None:
                found[path.name] = _micrometres(match[1], path) * 1e-3
    return found


def _micrometres(text: str, path: Path) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError as error:
        raise InputError(
            f"{path.name}: Image Pixel Size (um) must be a number; it is {text!r}"
        ) from error
