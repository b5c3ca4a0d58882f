"""userconf.yml -> frozen dataclasses, checked once.

`jaw_loc_config` is one flat mapping, as the lab wrote it, with a few sections of its own. Each
wing owns the dataclass of what it configures; this module knows only which of them are written
flat and which are a section, and lays file, experiment and `--set` over each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from jawloc.config.keys import (
    FLAT,
    INITIAL_SIGMA,
    NESTED,
    OBJECTS,
    SECTION,
    adapter_of,
    as_plain_values,
    dotted,
    keys_of,
)
from jawloc.config.layers import (
    Layer,
    layer_of,
    merge,
    nested,
    parse_override,
    read_layer,
    source_of,
    with_absolute_paths,
)
from jawloc.config.messages import describe_mistake
from jawloc.config.sigmas import decide_sigmas, sigma_mistake
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

# What the lab trained its network with; used where a config that names it doesn't say otherwise.
LAB_RECIPE: dict[str, Any] = {
    "batch_size": 8,
    "learning_rate": 1e-4,
    "learning_rate_schedule": "constant",
    "weight_average_epochs": 0.0,
    "weight_decay": 0.0,
    "curriculum": {"trigger": "loss", "minimum_sigma": 1.0},
}
# Least sigma, in heatmap voxels, that still lets a position be decoded within a voxel.
SIGMA_PER_STRIDE = 0.25
OBJECT_NAME = re.compile(r"[\w .-]+")  # of what MLflow takes in a metric's name
LAB_SHRINK_FACTOR = 0.9  # of the trigger "loss", which is the lab's


@dataclass(frozen=True)
class Config:
    """Every setting of a run, checked.

    Attributes
    ----------
    requested : the settings as files and `--set` gave them, what they leave out or to "auto"
        undecided. Everything else here is decided; a change begins with these, so that what
        depends on other settings is decided anew.
    """

    base: Path  # the config's folder: outputs, tracking store and cache lie in it
    cache: CacheConfig
    split: SplitConfig
    training: TrainingConfig
    crop: CropConfig
    curriculum: CurriculumConfig
    network: NetworkConfig
    augmentation: AugmentationConfig
    intensity: IntensityConfig
    presence_classifier: PresenceClassifierConfig
    requested: Mapping[str, Any] = field(repr=False, compare=False)

    def as_mapping(self) -> dict[str, Any]:
        """Return the settings as `jaw_loc_config` would hold them, every key written out."""
        mapping: dict[str, Any] = {}
        for name, section in FLAT.items():
            mapping |= as_plain_values(section, getattr(self, name))
        for name, section in NESTED.items():
            mapping[name] = as_plain_values(section, getattr(self, name))
        mapping[INITIAL_SIGMA] = mapping["curriculum"].pop("initial_sigma")
        return with_absolute_paths(mapping, self.base)

    def as_params(self) -> dict[str, Any]:
        """Return every setting under its dotted key (`curriculum.threshold`, ...)."""
        return dict(dotted(self.as_mapping()))

    def as_yaml(self) -> str:
        """Return a config file that says the same, wherever it is put."""
        return yaml.safe_dump({SECTION: self.as_mapping()}, sort_keys=False)


def load_config(
    path: Path,
    *,
    experiment: Path | None = None,
    overrides: Sequence[str] = (),
) -> Config:
    """Read `jaw_loc_config`, lay an experiment and `KEY=VALUE` overrides over it, check it all.

    Relative paths are relative to the file that names them (for overrides: to the current
    folder). Other top-level keys of the files belong to other tools and are left alone.

    Raises
    ------
    InputError
        A file that is absent or isn't YAML, an unknown key, a wrong type, a value out of range.
    """
    layers = [read_layer(path, "name one with --config, or try jawloc-train --demo")]
    if experiment is not None:
        layers.append(read_layer(experiment, "--experiment must name one"))
    return _check([*layers, *map(parse_override, overrides)], path.resolve().parent)


def check_config(
    mapping: Mapping[str, Any], *, base: Path, source: str, overrides: Sequence[str] = ()
) -> Config:
    """Lay overrides over a `jaw_loc_config` mapping and check it; see `load_config`."""
    return _check([layer_of(source, mapping, base), *map(parse_override, overrides)], base)


def change_config(config: Config, values: Mapping[str, Any], *, source: str) -> Config:
    """Return the config with the settings of some dotted keys changed, all checked again.

    What depends on them, and that nobody set, is what it would be had they been set from the start.
    """
    changes: dict[str, Any] = {}
    for key, value in values.items():
        changes = merge(changes, nested(key, value))
    layers = [layer_of("the settings", config.requested, config.base)]
    return _check([*layers, layer_of(source, changes, config.base)], config.base)


def _check(layers: Sequence[Layer], base: Path) -> Config:
    settings: dict[str, Any] = {}
    for layer in layers:
        settings = merge(settings, layer.settings)
    requested = settings
    settings = _with_recipe(settings)
    sigma = settings.get(INITIAL_SIGMA, CurriculumConfig.initial_sigma_voxels)
    settings = merge(settings, {"curriculum": {"initial_sigma": sigma}})

    parts: dict[str, Any] = {}
    for name, section in FLAT.items():
        own = {key: settings[key] for key in keys_of(section) if key in settings}
        parts[name] = _validate(section, own, "", layers)
    for name, section in NESTED.items():
        parts[name] = _validate(section, settings.get(name, {}), f"{name}.", layers)
    parts["network"] = parts["network"].for_grid(parts["cache"].downsampled_dicom_size)
    parts["curriculum"] = decide_sigmas(parts["curriculum"], parts["network"])
    config = Config(base=base, **parts, requested=requested)
    _check_together(config, layers)
    return config


def _with_recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the settings over the recipe of the network that they name."""
    result = {"curriculum": {}, "network": {}, **settings}
    if result["network"].get("name") == "attention-unet":
        result = merge(LAB_RECIPE, result)
    if result["curriculum"].get("trigger") == "loss":
        loss = result.get("loss", TrainingConfig.loss)
        thresholds = CurriculumConfig.loss_thresholds
        known = isinstance(loss, str) and loss in thresholds  # else refused with its own words
        threshold = thresholds[loss if known else TrainingConfig.loss]
        lab = {"threshold": threshold, "shrink_factor": LAB_SHRINK_FACTOR}
        result["curriculum"] = lab | result["curriculum"]
    return result


def _validate(section: Any, values: Mapping[str, Any], prefix: str, layers: Sequence[Layer]) -> Any:
    """Check by way of JSON, where a list may become a tuple but a text never a number."""
    try:
        return adapter_of(section).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        key, mistake = describe_mistake(error, prefix, values)
        key = INITIAL_SIGMA if key == "curriculum.initial_sigma" else key
        raise InputError(f"{source_of(key, layers)}: {key} {mistake}") from None


def _check_objects(objects: Mapping[str, Sequence[int] | None], source: str) -> None:
    """Refuse several objects that are one and the same, or that nothing could be named after."""
    if len(objects) == 1:
        return
    known: dict[frozenset[int] | None, str] = {}
    for name, values in objects.items():
        if not OBJECT_NAME.fullmatch(name):
            raise InputError(
                f"{source}: objects: where there are several, their metrics and pictures are named "
                f"after them, so a name must consist of letters, digits, spaces and _ . -; "
                f"received {name!r}"
            )
        if name == "coarse":  # val_error_coarse_voxels and the like are the coarse stage's
            raise InputError(
                f"{source}: objects: where there are several, none may be called coarse, as that "
                f"stands for a stage of the network in the metrics' names; received {name!r}"
            )
        twin = known.setdefault(None if values is None else frozenset(values), name)
        if twin != name:
            raise InputError(
                f"{source}: objects: two objects must differ in their label values; {twin!r} and "
                f"{name!r} both have {'every label' if values is None else list(values)}"
            )


def _check_curriculum(config: Config, layers: Sequence[Layer]) -> None:
    """Refuse sigmas that a stage can't represent, and a threshold that asks for nothing."""
    mistake = sigma_mistake(config.curriculum, config.network)
    if mistake is not None:
        keys, sentence = mistake
        raise InputError(f"{source_of(keys, layers)}: {sentence}")
    loss, threshold = config.training.loss, config.curriculum.threshold
    most = CurriculumConfig.losses_of_nothing.get(loss)
    if config.curriculum.trigger == "loss" and most is not None and threshold >= most:
        source = source_of(("curriculum.threshold", "curriculum.trigger", "loss"), layers)
        raise InputError(
            f"{source}: curriculum.threshold must be below {most:g} with curriculum.trigger loss "
            f"and loss {loss}, which a heatmap that says nothing stays below too; received "
            f"{threshold:g}"
        )


def _check_together(config: Config, layers: Sequence[Layer]) -> None:
    sigma, grey = config.curriculum, config.intensity
    _check_objects(config.cache.objects, source_of(OBJECTS, layers))
    if sigma.minimum_sigma_voxels > sigma.initial_sigma_voxels:
        source = source_of((INITIAL_SIGMA, "curriculum.minimum_sigma"), layers)
        raise InputError(
            f"{source}: curriculum.minimum_sigma must not exceed "
            f"{INITIAL_SIGMA}; received {sigma.minimum_sigma_voxels:g} and "
            f"{sigma.initial_sigma_voxels:g}"
        )
    if grey.low >= grey.high:
        raise InputError(
            f"{source_of('intensity', layers)}: intensity.low must be below intensity.high; "
            f"received {grey.low:g} and {grey.high:g}"
        )
    least = SIGMA_PER_STRIDE * config.network.heatmap_stride
    if sigma.minimum_sigma_voxels < least:
        raise InputError(
            f"{source_of('curriculum.minimum_sigma', layers)}: curriculum.minimum_sigma must be at "
            f"least {least:g} with network.stride {config.network.heatmap_stride}, or positions "
            f"can't be told apart within a heatmap voxel; received {sigma.minimum_sigma_voxels:g}"
        )
    _check_curriculum(config, layers)
    changed = config.augmentation
    if (
        grey.rule == "raw"
        and changed.enabled
        and (changed.gamma or changed.offset or changed.noise)
    ):
        raise InputError(
            f"{source_of('intensity.rule', layers)}: intensity.rule raw needs augmentation.gamma, "
            f"offset and noise of 0, which are shares of a grey range that raw values don't have; "
            f"received {changed.gamma:g}, {changed.offset:g} and {changed.noise:g}"
        )
    if config.network.name != "unet" and config.network.coarse != 1:
        raise InputError(
            f"{source_of('network.coarse', layers)}: network.coarse must be 1 (or auto) with "
            f"network.name {config.network.name}, which looks once; received "
            f"{config.network.coarse}"
        )
    if not config.network.channels:
        raise InputError(
            f"{source_of('network.channels', layers)}: network.channels must name at least one "
            f"level; received []"
        )
