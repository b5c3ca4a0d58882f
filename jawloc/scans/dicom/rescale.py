"""The rescale slope and intercept of DICOM volumes: from stored values to grey values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from jawloc.errors import InputError
from jawloc.scans.dicom.header import first_item, header_value, may_hold, shown
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
    if not may_hold(header, _PER_FRAME, _TRANSFORMATION, path):
        return every
    for number, group in enumerate((header_value(header, _PER_FRAME, path) or [])[:frames]):
        own = first_item(group, _TRANSFORMATION, path)
        if own is not None:
            every[number] = _rescale(own, path)
    return every


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
