"""Plain words for what is wrong with a setting."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import yaml
from pydantic import ValidationError

from jawloc.config.keys import KEYS
from jawloc.errors import comma_hint

_SIZE = "three whole numbers of voxels [z, y, x], in brackets, each at least"
# The whole rule of each setting that is not just a number or a word.
RULES = {
    "dicom_dirs": "a list of folders, such as [dicoms/labelled]",
    "downsampled_dicom_size": f"auto, or {_SIZE} 2",
    "crop_size": f"{_SIZE} 1",
    "validation_scans": "a number of scans, at least 1, or a list of scan ids",
    "test_scans": "a number of scans, at least 1, or a list of scan ids",
    "specimen_pattern": "a regular expression with exactly one group, the specimen's name, such as "
    r"'(fish\d+)'",
    "corrections": "a review.csv, or a list of them, such as [script_output/locations/review.csv]",
    "compare_with": "null, or the name, file or MLflow URI of a model",
    "objects": "a mapping from each object's name to its label value (1 to 255) or a list of "
    "them, or to null for every label",
    "device": "auto, cpu, cuda or cuda:N",
    "cycle_steps": "auto, or a whole number from 0",
    "initial_kernel_size": "auto, or a number of downsampled voxels greater than 0",
    "curriculum.coarse_initial_sigma": "auto, or a number of downsampled voxels greater than 0",
    "curriculum.coarse_minimum_sigma": "auto, or a number of downsampled voxels greater than 0",
    "curriculum.fine_initial_sigma": "auto, or a number of downsampled voxels greater than 0",
    "network.channels": "a list of whole numbers, each at least 1, one a level",
    "network.stride": "auto, 1, 2 or 4",
    "network.coarse": "auto, 1, 2, 4 or 8",
    "network.coarse_stride": "auto, 1, 2 or 4",
    "mask_supervision": "auto, true or false",
    "network.window": f"auto, or {_SIZE} 16",
    "presence_classifier.object_radius_mm": "null, or a number of mm greater than 0",
    "presence_classifier.object_radius_voxels": "null, or a number of full-size voxels greater "
    "than 0",
    "augmentation.flip_axes": "a list of axes out of z, y and x",
    "augmentation.rotation_degrees_zyx": "three numbers of degrees (z, y, x), each from 0 to 180",
}

# The rest by pydantic's name of the mistake, where its own words are not plain enough.
MISTAKES = {
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text of at least one character",
    "greater_than_equal": "at least {ge:.12g}",
    "less_than_equal": "at most {le:.12g}",
    "finite_number": "finite",
}


def describe_mistake(error: ValidationError, settings: Mapping[str, Any]) -> tuple[str, str]:
    """Return the dotted key of the first mistake, and the rule with the value that breaks it."""
    mistakes = error.errors()
    first = next((m for m in mistakes if m["type"] == "finite_number"), mistakes[0])
    key = next(key for key, place in KEYS.items() if place == first["loc"][:2])
    if key in RULES and first["type"] != "finite_number":
        rule = RULES[key]
    elif first["type"] in MISTAKES:
        rule = MISTAKES[first["type"]].format(**first.get("ctx", {}))
    else:
        rule = first["msg"].removeprefix("Input should be ").replace("a valid ", "a ")
    return key, f"must be {rule}; received {shown(settings[key])}"


def shown(value: object) -> str:
    """Return a value as it is written in YAML; for a number read as text, how to write it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        with suppress(ValueError, OverflowError):
            number = float(value)
            with suppress(ValueError):  # exact, however long
                number = int(value)
            plain = yaml.safe_dump(int(number) if number == int(number) else number).split()[0]
            return f"{value!r}, which YAML takes for text: write {plain}"
        return f"{value!r}{comma_hint(value)}"
    return repr(value)
