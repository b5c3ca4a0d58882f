"""The settings of each part of jawloc, and the key of each in `jaw_loc_config`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from jawloc.errors import InputError
from jawloc.heatmaps.curriculum import CurriculumConfig
from jawloc.inference.crop import CropConfig
from jawloc.scans.cache import CacheConfig
from jawloc.scans.points.corrections import CorrectionsConfig
from jawloc.training.augmentation import AugmentationConfig
from jawloc.training.intensity import IntensityConfig
from jawloc.training.loop import TrainingConfig
from jawloc.training.presence_training import PresenceClassifierConfig
from jawloc.training.splits import SplitConfig
from jawloc.training.stages import NetworkConfig


@dataclass(frozen=True)
class Sections:
    """The settings, each section as the class of the part that it configures."""

    # inherited by the sections' own classes, which are plain dataclasses
    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False)

    cache: CacheConfig = field(default_factory=CacheConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    corrections: CorrectionsConfig = field(default_factory=CorrectionsConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    intensity: IntensityConfig = field(default_factory=IntensityConfig)
    presence_classifier: PresenceClassifierConfig = field(default_factory=PresenceClassifierConfig)


SECTION = "jaw_loc_config"
INITIAL_SIGMA = "initial_kernel_size"  # the lab's name for curriculum.initial_sigma
MASK_SUPERVISION = "mask_supervision"  # a setting of the training, too
OBJECTS = "objects"  # below it the keys are the user's own
# Keys of earlier versions, sections or settings in them, that are still accepted.
RENAMED = {"presence": "presence_classifier"}
# What people write for a key, to be told the right one.
OTHER_NAMES = {
    "initial_sigma": INITIAL_SIGMA,
    "sigma": "curriculum.minimum_sigma",
    "lr": "learning_rate",
}
FLAT = ("cache", "split", "corrections", "training", "crop")  # written without the section's name
ADAPTER = TypeAdapter(Sections)  # checks settings and writes them
_DEFAULTS = ADAPTER.dump_python(Sections(), mode="json", by_alias=True)
NESTED = tuple(name for name in _DEFAULTS if name not in FLAT)
# The dotted key of each setting -> its section, and its name there.
KEYS = {
    name if section in FLAT else f"{section}.{name}": (section, name)
    for section, settings in _DEFAULTS.items()
    for name in settings
}
KEYS[INITIAL_SIGMA] = KEYS.pop("curriculum.initial_sigma")
KEYS[MASK_SUPERVISION] = KEYS.pop(f"network.{MASK_SUPERVISION}")


def known_keys() -> frozenset[str]:
    """Return every valid dotted key, sections included."""
    return frozenset([*KEYS, *NESTED])


def check_known(key: str, source: str) -> None:
    """Refuse a dotted key that doesn't exist, and name the valid one that is most like it."""
    if key in known_keys() or key.split(".")[0] == OBJECTS:
        return
    given, names = key.lower(), {k.rpartition(".")[2]: k for k in KEYS}
    spellings = names | {k: k for k in KEYS} | OTHER_NAMES
    alike = get_close_matches(given.rpartition(".")[2], spellings, n=1, cutoff=0.8)
    alike = alike or get_close_matches(given, spellings, n=1, cutoff=0)
    nearest = spellings[alike[0]]
    raise InputError(f"{source}: unknown key {key!r}; the nearest valid key is {nearest!r}")


def dotted(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting under its dotted key."""
    for name, value in mapping.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value and key.split(".")[0] != OBJECTS:
            yield from dotted(value, f"{key}.")
        else:
            yield key, value
