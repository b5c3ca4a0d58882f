"""A folder of 2-D slices as one scan: TIFF, BMP or PNG, also as Bruker's SkyScan writes them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jawloc.errors import InputError, as_input_error
from jawloc.geometry import Grid, Triple
from jawloc.scans.opening import open_binary
from jawloc.scans.rescale import Rescale, with_rescale
from jawloc.scans.scan import ScanFile, scan_id_of
from jawloc.scans.skyscan import is_reconstructed, logged_sizes
from jawloc.scans.spacing import SAME_SPACING, checked_spacing
from jawloc.scans.tiff import TIFF_ENDINGS, TiffLayout, decode, read_layout

PICTURE_ENDINGS = (".bmp", ".png")
SLICE_ENDINGS = (*TIFF_ENDINGS, *PICTURE_ENDINGS)
_DTYPES = {"1": bool, "L": np.uint8, "I;16": np.uint16, "I;16B": np.uint16, "I": np.uint16}


class _Slice(NamedTuple):
    path: Path
    shape: tuple[int, ...]  # (y, x), or more of a TIFF that is no slice
    dtype: np.dtype  # in native byte order
    layout: TiffLayout | None = None  # None of a BMP or PNG
    # of a BMP or PNG: what its values are multiplied by as Pillow reads them, and whether they are
    # read as numbers in its palette
    factor: int = 1
    indexed: bool = False

    @property
    def rescale(self) -> Rescale:
        return (1.0, 0.0) if self.layout is None else self.layout.rescale


def picture_slices(files: Sequence[Path]) -> list[Path]:
    """Return the TIFFs, BMPs and PNGs among a folder's files.

    Where SkyScan's reconstructed slices (`*_rec0001.tif`) are there, only those.
    """
    found = [path for path in files if path.suffix.lower() in SLICE_ENDINGS]
    return [path for path in found if is_reconstructed(path)] or found


def is_slice(path: Path) -> bool:
    """Return whether a TIFF, BMP or PNG is 2-D; InputError where it isn't a readable one."""
    return len(_read_header(path, is_label=False).shape) == 2


def open_slice_folder(folder: Path, slices: Sequence[Path], *, is_label: bool = False) -> ScanFile:
    """Open 2-D slices as one scan, in the order of the numbers in their names (2 before 10).

    With `is_label`, values are label values: of a palette, the numbers and not the colours. The
    voxel size is that of SkyScan's log beside them (`Image Pixel Size (um)`; along z, times the
    step of the numbers), else of the slices' own metadata where these give all three sizes.

    Raises
    ------
    InputError
        If there is only one slice, or one that is not 2-D, of one grey value a pixel, and like
        the first; if the names are not those of one row of slices without a gap; or if a size is
        not positive and finite.
    """
    if len(slices) < 2:
        raise InputError(f"{folder.name}: a scan needs at least two slices; it has {len(slices)}")
    paths = sorted(slices, key=lambda path: (_name_parts(path), path.name))
    every = [_read_header(path, is_label=is_label) for path in paths]
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
    step = _even_step(folder, paths)
    if first.layout is not None and first.layout.white is not None:
        warnings.warn(
            f"{folder.name}: 0 is white (photometric MINISWHITE); the grey values are inverted",
            stacklevel=1,
        )
    grid = Grid((len(every), first.shape[0], first.shape[1]), _voxel_size(folder, first, step))
    read = partial(_read, every)
    shown = (1.0, 1.0, 1.0) if first.layout is None else first.layout.shown_spacing_mm_zyx
    scan = ScanFile(
        scan_id_of(folder), folder, grid, first.dtype, read, None, shown_spacing_mm_zyx=shown
    )
    return with_rescale(scan, [one.rescale for one in every])


def _even_step(folder: Path, paths: Sequence[Path]) -> int:
    """Return the step in which the numbers of files rise, the last ones where several do.

    Raise InputError unless files are of one kind and the steps of some number are even.
    """
    endings = sorted({_kind(path) for path in paths})
    if len(endings) > 1:
        raise InputError(
            f"{folder.name}: the slices of a folder must be files of one kind; it has "
            f"{' and '.join(endings)} files"
        )
    texts, numbers = zip(*map(_split_name, paths), strict=True)
    for path, text in zip(paths, texts, strict=True):
        if text != texts[0]:
            raise InputError(
                f"{folder.name}: the names of slices must differ only in their numbers; it has "
                f"{paths[0].name} and {path.name}"
            )
    steps = np.diff(np.array(numbers, dtype=float), axis=0)
    even = steps.shape[1] > 0 and (steps[0] > 0) & (steps == steps[0]).all(axis=0)
    if np.any(even):  # others, such as the time of day, may be anything
        return int(steps[0][even][-1])
    column = int(np.argmax((steps != 0).sum(axis=0))) if steps.shape[1] else 0
    at = int(np.argmax(steps[:, column] != np.median(steps[:, column]))) if steps.shape[1] else 0
    raise InputError(
        f"{folder.name}: the numbers of slices must rise in even steps, or one is missing; "
        f"{paths[at].name} is followed by {paths[at + 1].name}"
    )


def _kind(path: Path) -> str:
    ending = path.suffix.lower()
    return "TIFF" if ending in TIFF_ENDINGS else ending[1:].upper()


def _split_name(path: Path) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the texts between the numbers of a file's name without its ending, and these."""
    parts = re.split(r"(\d+)", path.stem.lower())
    return tuple(parts[::2]), tuple(map(int, parts[1::2]))


def _name_parts(path: Path) -> list[Any]:
    texts, numbers = _split_name(path)
    return [part for pair in zip_longest(texts, numbers, fillvalue=-1) for part in pair]


def _read_header(path: Path, *, is_label: bool) -> _Slice:
    if path.suffix.lower() in TIFF_ENDINGS:
        layout = read_layout(path)
        return _Slice(path, layout.shape, layout.dtype.newbyteorder("="), layout)
    with as_input_error(f"{path.name}: the picture can't be read"), _picture(path) as picture:
        indexed = is_label and picture.mode == "P"
        if picture.mode not in _DTYPES and not indexed and not _is_grey_palette(picture):
            raise InputError(
                f"{path.name}: pixels must be one grey value each; the picture's are {picture.mode}"
            )
        dtype = np.dtype(_DTYPES.get(picture.mode, np.uint8))
        factor = _png_factor(path) if picture.mode == "L" else 1
        return _Slice(path, (picture.height, picture.width), dtype, None, factor, indexed)


def _png_factor(path: Path) -> int:
    """Return by what Pillow multiplies the grey values of a PNG of 2 or 4 bits, to fill 8."""
    with open_binary(path) as file:
        start = file.read(25)  # the 25th byte of a PNG is its number of bits
    bits = start[24] if path.suffix.lower() == ".png" else 8
    return 255 // (2**bits - 1) if bits in (2, 4) else 1


@contextmanager
def _picture(path: Path) -> Iterator[Any]:
    from PIL import Image

    kind = path.suffix[1:].upper()
    with open_binary(path) as file, Image.open(file, formats=[kind]) as picture:
        yield picture


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
        with as_input_error(problem), _picture(one.path) as whole:
            whole.verify()  # the checksums of a PNG, which reading ignores
        with as_input_error(problem), _picture(one.path) as picture:
            grey = picture.mode == "P" and not one.indexed
            values = np.asarray(picture.convert("L") if grey else picture).astype(one.dtype)
            values = values // one.dtype.type(one.factor) if one.factor > 1 else values
    if (values.shape, values.dtype) != (one.shape, one.dtype):
        raise InputError(
            f"{one.path.name}: the file changed while it was read; it was {one.dtype} {one.shape}, "
            f"it is {values.dtype} {values.shape}"
        )
    return values


def _voxel_size(folder: Path, first: _Slice, step: int) -> Triple | None:
    """Return the size by the log beside the slices, else by the first one's metadata.

    The log's is a pixel's, and the distance of two sections; SkyScan's software numbers the slices
    by section, also where it reconstructs only some of them.
    """
    own = None if first.layout is None else first.layout.spacing_mm_zyx
    sizes = logged_sizes(folder)
    if not sizes:
        return None if own is None or own[0] is None else (own[0], own[1], own[2])
    (log, size), *others = sizes.items()
    others += [] if own is None else [(first.path.name, own[2])]
    for name, other in others:
        if abs(other - size) > SAME_SPACING * size:
            warnings.warn(
                f"{folder.name}: the voxel size is {size:g} mm by {log}; {name} says {other:g} mm",
                stacklevel=1,
            )
    if step != 1:
        warnings.warn(
            f"{folder.name}: the numbers of its slices rise by {step}: they are taken to be "
            f"{step} pixels apart, {size * step:g} mm",
            stacklevel=1,
        )
    return checked_spacing([size * step, size, size], folder)
