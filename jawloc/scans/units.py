"""Units of length in the headers of volumes -> millimetres."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

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


def millimetres(units: Sequence[str], path: Path) -> list[float] | None:
    """Return how many millimetres units of length have; warn, and return None, if one isn't known.

    An empty unit counts as the millimetre, as for other readers of these formats.
    """
    found = [_MM.get(unit) or _MM.get(unit.lower()) if unit else 1.0 for unit in units]
    known = [mm for mm in found if mm is not None]
    if len(known) == len(found):
        return known
    warnings.warn(
        f"{path.name}: the spacing counts as unknown, since its unit must be one of length "
        f"(nm, um, mm, cm, m, inch); it is {units[found.index(None)]!r}",
        stacklevel=1,  # from here, so that each is shown once
    )
    return None
