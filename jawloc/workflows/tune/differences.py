"""What a study searches, as its storage describes it, beside what a command asks for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import yaml

from jawloc.training.changed_scans import tell_changed_scans

# The keys of what a description says of the scans: a name of `Data.fingerprint`, and this. The key
# "intensity of the scans" is none of them.
SCANS = " scans"
_OF_SCANS = re.compile(rf"\w+{SCANS}")


def scans_of(description: Mapping[str, Any]) -> dict[str, str]:
    """Return what a description says of the scans."""
    return {key: str(text) for key, text in description.items() if _OF_SCANS.fullmatch(key)}


def difference(name: str, known: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the sentence that refuses a study of something else; what differs first is named."""
    absent = object()  # None is a value
    key = next(k for k in (*now, *known) if known.get(k, absent) != now.get(k, absent))
    was, is_now = (_as_yaml(each[key]) if key in each else "not there" for each in (known, now))
    told = _OF_SCANS.fullmatch(key) and tell_changed_scans(*map(scans_of, (known, now)))
    return (
        f"--study-name: {name!r} is a study of something else, whose trials can't be compared with "
        f"these: {told or f'{key} was {was} and is now {is_now}'}; choose another name"
    )


def _as_yaml(value: Any) -> str:
    if isinstance(value, dict):
        value = {key: part for key, part in value.items() if part not in (None, False)}
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf)  # on one line
    return text.removesuffix("...\n").strip()
