"""Which scans are of one specimen: what their ids say.

Scans of one fish look alike. If some of them train and others test, the error says how well the
network remembers fish, not how well it finds the jaw in a new one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from jawloc.errors import InputError

# The name in front of what tells the scans of one specimen apart, of which there may be several:
# a side, a single letter, or a word for a scan or a repeat, with its number or without; and a
# letter right behind a digit. A bare number at the end never counts: it numbers specimens as often.
SPECIMEN_PATTERN = (
    r"(?i)(.+?)"
    r"(?:(?:[ _.-]+|(?<=\d))(?:left|right|(?:re)?scan|rep|repeat|retest|ses|session|run|take|copy)"
    r"(?:[ _.-]?\d+)?"
    r"|[ _.-]+[a-z]"
    r"|(?<=\d)[a-z])*$"
)


def checked_pattern(pattern: str) -> str:
    """Return a regular expression that has exactly one group.

    Raises
    ------
    ValueError
        If it is not one.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"{groups} groups")
    return pattern


def group_by_specimen(scan_ids: Sequence[str], pattern: str) -> dict[str, list[str]]:
    """Return the sorted scan ids of each specimen, by the specimen's name, sorted too.

    Parameters
    ----------
    pattern : regular expression that matches an id from its beginning; its one group is the
        specimen's name.

    Raises
    ------
    InputError
        An id that it doesn't match, or whose name would be empty.
    """
    groups: dict[str, list[str]] = {}
    for scan_id in sorted(scan_ids):
        found = re.match(pattern, scan_id)
        if found is None or not found[1]:
            raise InputError(
                f"specimen_pattern: it must find a specimen's name in the id of every scan; in "
                f"{scan_id!r} {pattern!r} finds none"
            )
        groups.setdefault(found[1], []).append(scan_id)
    return dict(sorted(groups.items()))
