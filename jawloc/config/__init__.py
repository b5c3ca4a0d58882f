"""userconf.yml -> frozen dataclasses, checked once.

`jaw_loc_config` is one flat mapping, as the lab wrote it, with a few sections of its own. Each part
of jawloc owns the dataclass of its settings; this package lays file, experiment and `--set` over
each other and checks the result.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from jawloc.config.combinations import combined_mistakes
from jawloc.config.compared import compared_settings
from jawloc.config.keys import ADAPTER, INITIAL_SIGMA, KEYS, SECTION, Sections
from jawloc.config.layers import Layer, absolute, layer_of, parse_override, read_layer, source_of
from jawloc.config.messages import describe_mistake
from jawloc.config.sigmas import decide_sigmas
from jawloc.errors import InputError
from jawloc.heatmaps.curriculum import CurriculumConfig
from jawloc.training.loop import TrainingConfig

# The settings with which the lab trained its network: the defaults where a config names it.
LAB_RECIPE: dict[str, Any] = {
    "batch_size": 8,
    "learning_rate": 1e-4,
    "learning_rate_schedule": "constant",
    "best_epoch_from": "start",
    "weight_average_epochs": 0.0,
    "weight_decay": 0.0,
    "curriculum.trigger": "loss",
    "curriculum.minimum_sigma": 1.0,
}
LAB_SHRINK_FACTOR, LAB_INITIAL_SIGMA = 0.9, 8.0  # of the trigger "loss", which is the lab's


@dataclass(frozen=True, kw_only=True)
class Config(Sections):
    """Every setting of a run, checked, with nothing left to "auto".

    Only a `downsampled_dicom_size` of "auto" stays, with all that depends on it, until the scans
    are known (`jawloc.workflows.prepare_data.decide_size`).

    Attributes
    ----------
    base : the config's folder; outputs, tracking store and cache lie in it
    layers : the settings as files and `--set` gave them, one laid over the other. A change starts
        from these, so that what depends on other settings is decided anew.
    """

    base: Path
    layers: Sequence[Layer] = field(repr=False, compare=False)

    @property
    def requested(self) -> Mapping[str, Any]:
        """Return the settings that were given, by their dotted keys."""
        return dict(pair for layer in self.layers for pair in layer.settings.items())

    @property
    def has_one_sigma(self) -> bool:
        """Return whether the initial sigma was left to "auto", and is the minimum one."""
        left = self.requested.get(INITIAL_SIGMA, "auto") == "auto"
        sigmas = self.curriculum
        return left and sigmas.initial_sigma_voxels in ("auto", sigmas.minimum_sigma_voxels)

    def as_params(self) -> dict[str, Any]:
        """Return every setting under its dotted key (`curriculum.threshold`, ...)."""
        plain = ADAPTER.dump_python(self, mode="json", by_alias=True)
        params = {key: plain[section][name] for key, (section, name) in KEYS.items()}
        return params | {"cache_dir": absolute(params["cache_dir"], self.base)}

    def compared_params(self, also: Iterable[str] = ()) -> dict[str, Any]:
        """Return the settings that runs are compared by, and `also`, under their dotted keys."""
        every = self.as_params()
        changed = [key for key in self.requested if every[key] != _left_out(self, key)]
        return {key: every[key] for key in (*compared_settings(changed), *also)}

    def as_yaml(self) -> str:
        """Return a config file that sets every key, valid in any folder."""
        mapping: dict[str, Any] = {}
        params = self.as_params()
        if self.has_one_sigma:
            params[INITIAL_SIGMA] = "auto"  # right, too, where another minimum is laid over it
        for key, value in params.items():
            section, dot, name = key.rpartition(".")
            (mapping.setdefault(section, {}) if dot else mapping)[name] = value
        return yaml.safe_dump({SECTION: mapping}, sort_keys=False)


def load_config(
    path: Path, *, experiment: Path | None = None, overrides: Sequence[str] = ()
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

    Settings left to "auto" or to a recipe are decided anew.
    """
    return _check([*config.layers, layer_of(source, values, config.base)], config.base)


def _left_out(config: Config, key: str) -> Any:
    """Return a setting's value had it not been set; None if something must be set then."""
    rest = {name: value for name, value in config.requested.items() if name != key}
    try:
        return _check([Layer("the settings", rest)], config.base).as_params()[key]
    except InputError:
        return None


def _check(layers: Sequence[Layer], base: Path) -> Config:
    requested: dict[str, Any] = {}
    for layer in layers:
        requested |= layer.settings
    settings = _with_recipe(requested)
    mappings: dict[str, dict[str, Any]] = defaultdict(dict)
    for key, value in settings.items():
        section, name = KEYS[key]
        mappings[section][name] = value
    try:  # by way of JSON, where a list may become a tuple but a text never a number
        sections: Sections = ADAPTER.validate_json(json.dumps(mappings, default=str))
    except ValidationError as error:
        key, mistake = describe_mistake(error, settings)
        raise InputError(f"{source_of([key], layers)}: {key} {mistake}") from None
    if sections.cache.downsampled_dicom_size == "auto":  # what depends on it is decided with it
        return Config(**vars(sections), base=base, layers=layers)
    network = sections.network.for_grid(sections.cache.shape_zyx)
    decided = {
        "network": network,
        "curriculum": decide_sigmas(sections.curriculum, network),
        "training": sections.training.for_stages(len(network.stages())),
    }
    config = Config(**vars(sections) | decided, base=base, layers=layers)
    for keys, sentence in combined_mistakes(config):
        raise InputError(f"{source_of(keys, layers)}: {sentence}")
    return config


def _with_recipe(settings: dict[str, Any]) -> dict[str, Any]:
    """Lay the settings over the recipe of the network and of the trigger that they name."""
    if settings.get("network.name") == "attention-unet":
        settings = LAB_RECIPE | settings
    if settings.get("curriculum.trigger") == "loss":
        thresholds = CurriculumConfig.loss_thresholds
        loss = str(settings.get("loss"))  # an unknown one is refused later
        threshold = thresholds.get(loss, thresholds[TrainingConfig.loss])
        lab = {"curriculum.threshold": threshold, "curriculum.shrink_factor": LAB_SHRINK_FACTOR}
        settings = lab | settings
        if settings.get(INITIAL_SIGMA, "auto") == "auto":
            settings[INITIAL_SIGMA] = LAB_INITIAL_SIGMA
    return settings
