"""What became of a run's scans since it began, in words: their keys alone tell nobody."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from jawloc.scans.messages import names_shown

IDS = "_ids"  # ends the names of texts that list scans, each as its id and content key
_SCAN = re.compile(r"(\S.*?):([0-9a-f]{12})(?: |$)")


def lists_scans(name: str) -> bool:
    """Return whether a text of this name lists scans (`Data.fingerprint`)."""
    return name.endswith(IDS)


def tell_changed_scans(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return in words how lists of scans differ; empty if they don't.

    Each mapping has the lists of all uses by name. Scans that are only used otherwise are named by
    the first list that differs.
    """
    names = [name for name in (*now, *before) if before.get(name) != now.get(name)]
    if not names:
        return ""
    was, is_now = (_keys(of.get(name, "") for name in names) for of in (before, now))
    parts = {
        "no longer there": was.keys() - is_now.keys(),
        "new": is_now.keys() - was.keys(),
        "changed": {scan for scan in was.keys() & is_now.keys() if was[scan] != is_now[scan]},
    }
    told = [f"{how}: {names_shown(sorted(scans))}" for how, scans in parts.items() if scans]
    if told:
        return f"scans {'; '.join(told)}"
    first = names[0]
    old, new = ({*_SCAN.findall(of.get(first, ""))} for of in (before, now))
    moved = {"without": {scan for scan, _ in old - new}, "with": {scan for scan, _ in new - old}}
    lists = {how: names_shown(sorted(scans)) for how, scans in moved.items() if scans}
    other = " and ".join(f"{how} {names}" for how, names in lists.items())
    # a text without any scan, such as that of all corrections, is no list
    return f"{first} is now {other or 'in another order'}" if old or new else ""


def _keys(lists: Iterable[str]) -> dict[str, set[str]]:
    """Return the content keys of each scan by its id; in a fold, a scan may be a corrected copy."""
    keys: dict[str, set[str]] = {}
    for text in lists:
        for scan, key in _SCAN.findall(text):
            keys.setdefault(scan, set()).add(key)
    return keys
