"""The keys of `jaw_loc_config`: which dataclass each belongs to, flat or in a section."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from jawloc.config.messages import nearest_key
from jawloc.errors import InputError
from jawloc.heatmaps.curriculum import CurriculumConfig
from jawloc.inference.crop import CropConfig
from jawloc.scans.cache import CacheConfig
from jawloc.training.augmentation import AugmentationConfig
from jawloc.training.intensity import IntensityConfig
from jawloc.training.loop import TrainingConfig
from jawloc.training.network import NetworkConfig
from jawloc.training.presence_classifier import PresenceClassifierConfig
from jawloc.training.splits import SplitConfig

SECTION = "jaw_loc_config"
FLAT: dict[str, Any] = {
    "cache": CacheConfig,
    "split": SplitConfig,
    "training": TrainingConfig,
    "crop": CropConfig,
}
NESTED: dict[str, Any] = {
    "curriculum": CurriculumConfig,
    "network": NetworkConfig,
    "augmentation": AugmentationConfig,
    "intensity": IntensityConfig,
    "presence_classifier": PresenceClassifierConfig,
}
# Keys of earlier versions, sections or settings in them, that are still accepted.
RENAMED = {"presence": "presence_classifier"}
INITIAL_SIGMA = "initial_kernel_size"  # the lab's name for curriculum.initial_sigma
OBJECTS = "objects"  # below it the keys are the user's own
# What people write for a key, to be told the right one.
OTHER_NAMES = {
    "initial_sigma": INITIAL_SIGMA,
    "sigma": "curriculum.minimum_sigma",
    "lr": "learning_rate",
}


@functools.cache
def keys_of(section: Any) -> tuple[str, ...]:
    """Return the names of a dataclass's fields as they are written in YAML."""
    return tuple(as_plain_values(section, section()))


@functools.cache
def known_keys() -> frozenset[str]:
    """Return every valid dotted key, sections included."""
    flat = [key for section in FLAT.values() for key in keys_of(section)]
    nested = [f"{name}.{key}" for name, section in NESTED.items() for key in keys_of(section)]
    return frozenset([INITIAL_SIGMA, *flat, *NESTED, *nested]) - {"curriculum.initial_sigma"}


def current_key(key: str, source: str) -> str:
    """Return the present name of a dotted key, and warn where an earlier one was given."""
    section, dot, rest = key.partition(".")
    if section not in RENAMED:
        return key
    new = f"{RENAMED[section]}{dot}{rest}"
    warnings.warn(f"{source}: {key} is now called {new}; the old name still works", stacklevel=2)
    return new


def check_known(key: str, source: str) -> None:
    """Refuse a dotted key that means nothing, and name the one that was probably meant."""
    if key in known_keys() or key.split(".")[0] == OBJECTS:
        return
    spellings = {k: k for k in known_keys() if k not in NESTED} | OTHER_NAMES
    nearest = nearest_key(key, spellings)
    raise InputError(f"{source}: unknown key {key!r}; the nearest valid key is {nearest!r}")


def as_plain_values(section: Any, value: Any) -> dict[str, Any]:
    """Return a dataclass's fields as YAML would hold them."""
    return adapter_of(section).dump_python(value, mode="json", by_alias=True)


@functools.cache
def adapter_of(section: Any) -> TypeAdapter[Any]:
    """Return what reads and writes a dataclass; it takes milliseconds to make."""
    return TypeAdapter(section)


def dotted(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting under its dotted key."""
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value and key != OBJECTS:
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
