"""What is wrong with a setting, in words for whoever wrote it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

# Settings that are more than one number or word: their whole rule at once.
RULES = {
    "dicom_dirs": "a list of folders, such as [dicoms/labelled]",
    "downsampled_dicom_size": "three whole numbers of voxels (z, y, x), each at least 2",
    "crop_size": "three whole numbers of voxels (z, y, x), each at least 1",
    "validation_scans": "a number of scans, at least 1, or a list of scan ids",
    "test_scans": "a number of scans, at least 1, or a list of scan ids",
    "specimen_pattern": "a regular expression with exactly one group, the specimen's name, such as "
    r"'(fish\d+)'",
    "objects": "a mapping from each object's name to its label value (1 to 255) or a list of "
    "them, or to null for every label",
    "device": "auto, cpu, cuda or cuda:N",
    "curriculum.coarse_initial_sigma": "auto, or a number of downsampled voxels greater than 0",
    "curriculum.coarse_minimum_sigma": "auto, or a number of downsampled voxels greater than 0",
    "curriculum.fine_initial_sigma": "auto, or a number of downsampled voxels greater than 0",
    "network.channels": "a list of whole numbers, each at least 1, one a level",
    "network.stride": "auto, 1, 2 or 4",
    "network.coarse": "auto, 1, 2, 4 or 8",
    "network.window": "auto, or three whole numbers of voxels (z, y, x), each at least 16",
    "augmentation.flip_axes": "a list of axes out of z, y and x",
    "augmentation.rotation_degrees_zyx": "three numbers of degrees (z, y, x), each from 0 to 180",
}

# The rest, by pydantic's name of the mistake and what it knows of the limit.
MISTAKES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "float_type": lambda _: "a number",
    "int_type": lambda _: "a whole number",
    "int_from_float": lambda _: "a whole number",
    "bool_type": lambda _: "true or false",
    "string_type": lambda _: "a text",
    "string_too_short": lambda _: "a text of at least one character",
    "literal_error": lambda limit: f"one of {str(limit['expected']).replace(' or ', ', ')}",
    "greater_than": lambda limit: f"greater than {limit['gt']:g}",
    "greater_than_equal": lambda limit: f"at least {limit['ge']:g}",
    "less_than": lambda limit: f"less than {limit['lt']:g}",
    "less_than_equal": lambda limit: f"at most {limit['le']:g}",
}


def describe_mistake(
    error: ValidationError, prefix: str, values: Mapping[str, Any]
) -> tuple[str, str]:
    """Return the dotted key of the first mistake, and the rule with the value that breaks it.

    Parameters
    ----------
    prefix : what comes before a key of `values`, for instance ``curriculum.``
    values : the settings that were checked
    """
    first = error.errors()[0]
    name = str(first["loc"][0])
    key = prefix + name
    value = values.get(name)
    return key, f"must be {RULES.get(key) or _rule(first)}; received {shown(value)}"


def _rule(mistake: ErrorDetails) -> str:
    in_words = MISTAKES.get(mistake["type"])
    return in_words(mistake.get("ctx", {})) if in_words else mistake["msg"]


def shown(value: object) -> str:
    """Return a value as it is written in YAML, and a number that became text with its mending."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    number = _number_in(value) if isinstance(value, str) else None
    if number is None:
        return repr(value)
    return f"{value!r}, which YAML takes for text: write {number}"


def _number_in(text: str) -> str | None:
    """Return the number that a text holds, as YAML would have to see it."""
    for kind in (int, float):
        try:
            return yaml.safe_dump(kind(text)).split()[0]
        except ValueError:
            continue
    return None


def nearest_key(key: str, known: Mapping[str, str] | Iterable[str]) -> str:
    """Return the known key that is most like an unknown one, in whatever section it is.

    Parameters
    ----------
    known : dotted keys, or a mapping from a spelling to the dotted key that it stands for
    """
    spellings = known if isinstance(known, Mapping) else {k: k for k in known}

    def likeness(spelling: str) -> float:
        last, own = key.rpartition(".")[2].lower(), spelling.rpartition(".")[2]
        whole = difflib.SequenceMatcher(None, key.lower(), spelling).ratio()
        return max(whole, difflib.SequenceMatcher(None, last, own).ratio(), 0.7 * (last in own))

    return spellings[max(sorted(spellings), key=likeness)]
