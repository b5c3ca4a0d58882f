"""The voxel size that a TIFF's metadata gives, ImageJ's and OME's, and the one that ITK takes.

TIFF's own resolution is in pixels per inch or cm, has no z, and is nearly always a made-up 72 or
96, so it counts as unknown. So does ImageJ's unit inch: it takes that from this resolution.
"""

from __future__ import annotations

import math
import warnings
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from pathlib import Path
from typing import Any

from jawloc.errors import InputError
from jawloc.geometry import Triple
from jawloc.scans.spacing import length_in_mm, millimetres

Size = tuple[float | None, float, float]  # (z, y, x) in mm; z is None where no field has it

_INCH = 25.4  # mm
_MM_OF_RESOLUTION_UNITS = {2: _INCH, 3: 10.0}
_NO_LENGTH = ("", "pixel", "pixels", "voxel", "voxels", "reference frame")


def voxel_size(tiff: Any, path: Path) -> Size | None:
    """Return the voxel size (z, y, x) in mm of an opened `tifffile.TiffFile`; None if unknown.

    Raises
    ------
    InputError
        If a size is not positive and finite.
    """
    if tiff.is_ome:
        return _ome_size(tiff.ome_metadata or "", path)
    return _imagej_size(tiff, path) if tiff.is_imagej else None


def spacing_shown_by_itk(tiff: Any) -> Triple:
    """Return the spacing (z, y, x) in mm by which ITK, and so 3D Slicer, shows a TIFF.

    That is its resolution in pixels per inch or cm, else 1, and always 1 along z. ITK does not know
    ImageJ's and OME's metadata.
    """
    page = tiff.pages[0]
    unit = page.tags.get("ResolutionUnit")
    mm = None if unit is None else _MM_OF_RESOLUTION_UNITS.get(unit.value)
    if mm is not None and _both_known(page.tags):
        with suppress(ArithmeticError, TypeError, ValueError):  # which ITK can't show
            x, y = (mm / float(pixels) for pixels in page.resolution)
            if all(math.isfinite(size) and size > 0 for size in (x, y)):
                return 1.0, y, x
    return 1.0, 1.0, 1.0


def _imagej_size(tiff: Any, path: Path) -> Size | None:
    """Return ImageJ's size: pixels a unit in the resolution tags, and `spacing` along z.

    ImageJ leaves out a `spacing` of 1. So do writers that have none; a missing one is 1 only where
    the pixels are 1 by 1, too.
    """
    metadata, page = tiff.imagej_metadata or {}, tiff.pages[0]
    unit = metadata.get("unit", "")
    # ImageJ writes the units of y and z only where they are others
    given = [metadata.get(name, unit) for name in ("zunit", "yunit", "unit")]
    units = [str(one).replace("\\u00B5", "µ").strip() for one in given]
    if any(one.lower() in _NO_LENGTH for one in units) or not _both_known(page.tags):
        return None
    if any(length_in_mm(one) == _INCH for one in units):
        warnings.warn(
            f"{path.name}: the voxel size counts as unknown, since its unit is the inch: ImageJ "
            "has that from a number of pixels per inch, which most programs make up",
            stacklevel=1,
        )
        return None
    x, y = (1 / n if n > 0 else math.nan for n in page.resolution)
    z = metadata.get("spacing", 1.0 if x == y == 1 else None)
    return _in_mm([None if z is None else abs(float(z)), y, x], units, path)


def _both_known(tags: Any) -> bool:
    return "XResolution" in tags and "YResolution" in tags


def _ome_size(text: str, path: Path) -> Size | None:
    """Return the physical size of the first image's pixels; OME's default unit is the µm."""
    pixels = next(
        (e for e in ElementTree.fromstring(text).iter() if e.tag.split("}")[-1] == "Pixels"), None
    )
    given = {} if pixels is None else pixels.attrib
    sizes = [given.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    units = [given.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]
    if sizes[1] is None or sizes[2] is None or {u.lower() for u in units} & set(_NO_LENGTH):
        return None
    return _in_mm([None if size is None else float(size) for size in sizes], units, path)


def _in_mm(sizes: list[float | None], units: list[str], path: Path) -> Size | None:
    factors = millimetres(units, path)
    if factors is None:
        return None
    z, y, x = (None if s is None else s * mm for s, mm in zip(sizes, factors, strict=True))
    if y is None or x is None:
        return None
    if not all(math.isfinite(size) and size > 0 for size in (y, x, 1.0 if z is None else z)):
        raise InputError(
            f"{path.name}: the voxel size (z, y, x) must be positive and finite; its metadata "
            f"give {sizes} {', '.join(dict.fromkeys(units))}"
        )
    return z, y, x
