"""What messages share: a few of many names, and warnings of what is read otherwise."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Collection, Sequence

TO_CHECK = "check that they match"  # ends a note that nobody may miss


def names_shown(names: Sequence[str], most: int = 3) -> str:
    """Return a few of the names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def closest_shown(name: str, names: Collection[str]) -> str:
    """Return a few of the names, those most like a name that none has, and how many more."""
    alike = {one: difflib.SequenceMatcher(None, name, one).ratio() for one in names}
    return names_shown(sorted(names, key=lambda one: (-alike[one], one)))


def tell(sentence: str) -> None:
    """Warn of what is read otherwise than it lies there; Python shows the same warning once."""
    warnings.warn(sentence, stacklevel=2)
