"""Voxel spacings as headers state them: their units of length, and what none can be."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jawloc.errors import InputError
from jawloc.geometry import Triple

SAME_SPACING = 1e-3  # relative difference of two voxel sizes that count as one
_NAMES_BY_MM = {
    1e-7: "å angstrom angstroms ångström",
    1e-6: "nm nanometer nanometers nanometre nanometres",
    1e-3: "um µm μm micron microns micrometer micrometers micrometre micrometres",
    1.0: "mm millimeter millimeters millimetre millimetres",
    10.0: "cm centimeter centimeters centimetre centimetres",
    25.4: "in inch inches",
    1000.0: "m meter meters metre metres",
}
_MM = {name: mm for mm, names in _NAMES_BY_MM.items() for name in names.split()}


def length_in_mm(unit: str) -> float | None:
    """Return how many millimetres a unit of length has; None if it isn't known."""
    return _MM.get(unit) or _MM.get(unit.lower())


def millimetres(units: Sequence[str], path: Path) -> list[float] | None:
    """Return how many millimetres units of length have; warn, and return None, if one isn't known.

    An empty unit counts as the millimetre, as for other readers of these formats.
    """
    found = [length_in_mm(unit) if unit else 1.0 for unit in units]
    known = [mm for mm in found if mm is not None]
    if len(known) == len(found):
        return known
    warnings.warn(
        f"{path.name}: the spacing counts as unknown, since its unit must be one of length "
        f"(nm, um, mm, cm, m, inch); it is {units[found.index(None)]!r}",
        stacklevel=1,  # from here, so that each is shown once
    )
    return None


def checked_spacing(values: Iterable[Any], path: Path) -> Triple:
    """Return three values as a spacing in mm; InputError if they aren't positive and finite."""
    given = tuple(values)
    with suppress(TypeError, ValueError):
        given = z, y, x = tuple(float(value) for value in given)
        if all(math.isfinite(value) and value > 0 for value in given):
            return z, y, x
    raise InputError(
        f"{path.name}: the spacing (z, y, x) in mm must be positive and finite; it is {given}"
    )
