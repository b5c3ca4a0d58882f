"""Quantities in words: the names of units, numbers with their nouns, and numbers made short."""

from __future__ import annotations

from typing import Any

# Units of radial errors, by their keys in summaries and metrics; the first that is known is told.
UNIT_NAMES = {
    "mm": "mm",
    "full_size_voxels": "full-size voxels",
    "downsampled_voxels": "downsampled voxels",
}


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 scan, 2 scans."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def short(value: Any) -> str:
    """Return a value as a text; a fraction with three significant digits.

    There is no exponent from 0.0001 to a million.

    >>> short(0.12345), short(999.7), short(1234.5), short(7), short("auto")
    ('0.123', '1000', '1234', '7', 'auto')
    """
    if not isinstance(value, float):
        return str(value)
    # from 999.5 on, three digits round to 1e+03
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"
