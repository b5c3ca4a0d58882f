"""The rescale slope and intercept of DICOM volumes: from stored values to grey values."""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from jawloc.errors import InputError
from jawloc.scans.dicom.header import byte_range, first_item, header_value, shown
from jawloc.scans.opening import open_binary
from jawloc.scans.rescale import Rescale

_TRANSFORMATION = "PixelValueTransformationSequence"
_PER_FRAME = "PerFrameFunctionalGroupsSequence"


def rescales(header: Dataset, frames: int, path: Path) -> list[Rescale]:
    """Return the slope and intercept of each of the first frames; 1 and 0 where there are none.

    They come from each frame's own functional group (a quarter of a second to parse for 2000
    frames, so only where there is a rescale in one), else from the group that all frames share,
    else from the top level.
    Raise InputError if one is not a finite number, or a slope is 0, or the file has a table.
    """
    if header_value(header, "ModalityLUTSequence", path):
        raise InputError(
            f"{path.name}: grey values must be stored values times a slope plus an intercept; "
            "the file has a table of them (ModalityLUTSequence)"
        )
    shared_groups = first_item(header, "SharedFunctionalGroupsSequence", path)
    shared = first_item(shared_groups, _TRANSFORMATION, path)
    every = [_rescale(header if shared is None else shared, path)] * frames
    if not _may_hold(header, _PER_FRAME, _TRANSFORMATION, path):
        return every
    for number, group in enumerate((header_value(header, _PER_FRAME, path) or [])[:frames]):
        own = first_item(group, _TRANSFORMATION, path)
        if own is not None:
            every[number] = _rescale(own, path)
    return every


def _may_hold(header: Dataset, sequence: str, keyword: str, path: Path) -> bool:
    """Return False where a sequence's bytes can't hold an element; much faster than parsing it."""
    place = byte_range(header, tag_for_keyword(sequence) or 0)
    if place is None or not header.original_encoding[1]:  # parsed already, or big-endian
        return sequence in header
    tag = tag_for_keyword(keyword) or 0
    wanted, (start, length) = struct.pack("<HH", tag >> 16, tag & 0xFFFF), place
    with open_binary(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(wanted, start, start + length) >= 0


def _rescale(place: Dataset, path: Path) -> Rescale:
    slope = _number(header_value(place, "RescaleSlope", path), 1.0)
    intercept = _number(header_value(place, "RescaleIntercept", path), 0.0)
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise InputError(
            f"{path.name}: RescaleSlope and RescaleIntercept must be one finite number each, the "
            f"slope not 0; they are {shown(place.get('RescaleSlope'))} and "
            f"{shown(place.get('RescaleIntercept'))}"
        )
    return slope, intercept


def _number(value: Any, default: float) -> float:
    """Return a header's value as a number; NaN if it isn't exactly one."""
    try:
        return default if value is None else float(value)
    except (TypeError, ValueError):
        return math.nan
