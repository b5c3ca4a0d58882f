"""userconf.yml -> frozen dataclasses, checked once.

`jaw_loc_config` is one flat mapping, as the lab wrote it, with a few sections of its own. Each
wing owns the dataclass of what it configures; this module knows only which of them are written
flat and which are a section, merges defaults, file, experiment and `--set`, and turns what
pydantic finds wrong into one sentence.
"""

from __future__ import annotations

import copy
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from jawloc.errors import InputError
from jawloc.heatmaps.curriculum import CurriculumConfig
from jawloc.locating.crop import CropConfig
from jawloc.scans.cache import CacheConfig
from jawloc.training.augmentation import AugmentationConfig
from jawloc.training.dataset import IntensityConfig, SplitConfig
from jawloc.training.loop import TrainingConfig
from jawloc.training.network import NetworkConfig

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
}
INITIAL_SIGMA = "initial_kernel_size"  # the lab's name for curriculum.initial_sigma

# What the lab trained its network with; used where a config that names it doesn't say otherwise.
LAB_RECIPE: dict[str, Any] = {
    "batch_size": 8,
    "learning_rate": 1e-4,
    "learning_rate_schedule": "constant",
    "weight_average_epochs": 0.0,
    "weight_decay": 0.0,
    "curriculum": {"trigger": "loss"},
}
LAB_TRIGGER = {"threshold": 1.0, "shrink_factor": 0.9}


@dataclass(frozen=True)
class Config:
    """Every setting of a run, checked."""

    base: Path  # the config's folder: outputs, tracking store and cache lie in it
    cache: CacheConfig
    split: SplitConfig
    training: TrainingConfig
    crop: CropConfig
    curriculum: CurriculumConfig
    network: NetworkConfig
    augmentation: AugmentationConfig
    intensity: IntensityConfig

    def as_mapping(self) -> dict[str, Any]:
        """Return the settings as `jaw_loc_config` would hold them, every key written out."""
        mapping: dict[str, Any] = {}
        for name, section in FLAT.items():
            mapping |= _dump(section, getattr(self, name))
        for name, section in NESTED.items():
            mapping[name] = _dump(section, getattr(self, name))
        mapping[INITIAL_SIGMA] = mapping["curriculum"].pop("initial_sigma")
        return mapping

    def as_params(self) -> dict[str, Any]:
        """Return every setting under its dotted key (`curriculum.threshold`, ...)."""
        return dict(_dotted(self.as_mapping()))

    def as_yaml(self) -> str:
        """Return a config file that says the same."""
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
    mapping = _read_section(path)
    if experiment is not None:
        mapping = _merge(mapping, _read_section(experiment))
    return check_config(mapping, base=path.resolve().parent, source=path, overrides=overrides)


def check_config(
    mapping: Mapping[str, Any], *, base: Path, source: Path, overrides: Sequence[str] = ()
) -> Config:
    """Lay overrides over a `jaw_loc_config` mapping and check it; see `load_config`."""
    known = set(_known_keys())
    for key, _ in _dotted(mapping):
        _check_known(key, known, source.name)
    settings = copy.deepcopy(dict(mapping))
    for override in overrides:
        settings = _merge(settings, _parse_override(override, known))
    settings = _with_defaults(settings)
    sigma = settings.pop(INITIAL_SIGMA, CurriculumConfig.initial_sigma_voxels)
    settings["curriculum"] = {**settings["curriculum"], "initial_sigma": sigma}

    parts: dict[str, Any] = {}
    for name, section in FLAT.items():
        own = {f: settings[f] for f in _keys(section) if f in settings}
        parts[name] = _validate(section, own, "", source.name)
    for name, section in NESTED.items():
        parts[name] = _validate(section, settings.get(name, {}), f"{name}.", source.name)
    config = Config(base=base, **parts)
    _check_together(config, source.name)
    return config


def _read_section(path: Path) -> dict[str, Any]:
    """Return a file's `jaw_loc_config` with its paths made absolute."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such config file; name one with --config, or try jawloc-train --demo"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the config can't be read ({error})") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: the config must be YAML; {reason}") from error
    if not isinstance(content, dict) or not isinstance(content.get(SECTION), dict):
        raise InputError(f"{path}: the config must hold a mapping named {SECTION}")
    return _absolute_paths(content[SECTION], path.resolve().parent)


def _absolute_paths(mapping: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    result = dict(mapping)
    folders = result.get("dicom_dirs")
    if isinstance(folders, list) and all(isinstance(f, str) for f in folders):
        result["dicom_dirs"] = [str(folder / Path(f).expanduser()) for f in folders]
    if isinstance(result.get("cache_dir"), str):
        result["cache_dir"] = str(folder / Path(result["cache_dir"]).expanduser())
    return result


def _parse_override(text: str, known: set[str]) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set: the form is KEY=VALUE; received {text!r}")
    key = key.strip()
    _check_known(key, known, "--set")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {key}: the value must be YAML; received {value!r}") from error
    nested = parsed
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return _absolute_paths(nested, Path.cwd())


def _with_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the settings over the recipe of the network that they name."""
    result = dict(settings)
    if isinstance(result.get("network"), str):  # `network: attention-unet` for short
        result["network"] = {"name": result["network"]}
    network = result.get("network")
    if isinstance(network, dict) and network.get("name") == "attention-unet":
        result = _merge(LAB_RECIPE, result)
    curriculum = result.get("curriculum", {})
    if isinstance(curriculum, dict) and curriculum.get("trigger") == "loss":
        result["curriculum"] = {**LAB_TRIGGER, **curriculum}
    result.setdefault("curriculum", {})
    if not isinstance(result["curriculum"], dict):
        raise InputError(
            f"{SECTION}: curriculum must be a mapping; received {result['curriculum']!r}"
        )
    return result


def _validate(section: Any, values: Any, prefix: str, source: str) -> Any:
    """Check by way of JSON, where a list may become a tuple but a text never a number."""
    try:
        return TypeAdapter(section).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise InputError(_sentence(error, prefix, values, source)) from None


def _sentence(error: ValidationError, prefix: str, values: Any, source: str) -> str:
    """Say the first thing that is wrong: file, key, rule, value."""
    first = error.errors()[0]
    key = prefix + ".".join(str(part) for part in _user_key(first["loc"], values))
    if key == "curriculum.initial_sigma":
        key = INITIAL_SIGMA
    rule = first["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    value = first["input"]
    hint = ""
    if isinstance(value, str) and _is_number(value):
        hint = " (YAML reads a number such as 1e-3 as text: write 0.001 or 1.0e-3)"
    return f"{source}: {key or prefix.rstrip('.')} must be {rule}; received {value!r}{hint}"


def _user_key(location: tuple[int | str, ...], values: Any) -> Iterator[int | str]:
    """Yield the part of pydantic's location that the user wrote (not its union branches)."""
    for part in location:
        in_mapping = isinstance(values, dict) and part in values
        in_list = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if in_mapping or in_list:
            values = values[part]
            yield part
        else:
            return


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_known(key: str, known: set[str], source: str) -> None:
    # below `objects` the keys are the user's own
    if key in known or key.split(".")[0] == "objects":
        return
    nearest = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.0)[0]
    raise InputError(f"{source}: unknown key {key!r}; the nearest valid key is {nearest!r}")


def _check_together(config: Config, source: str) -> None:
    sigma = config.curriculum
    if sigma.minimum_sigma_voxels > sigma.initial_sigma_voxels:
        raise InputError(
            f"{source}: curriculum.minimum_sigma must not exceed {INITIAL_SIGMA}; received "
            f"{sigma.minimum_sigma_voxels} and {sigma.initial_sigma_voxels}"
        )
    if config.intensity.low >= config.intensity.high:
        raise InputError(
            f"{source}: intensity.low must be below intensity.high; received "
            f"{config.intensity.low} and {config.intensity.high}"
        )
    if not config.network.channels:
        raise InputError(f"{source}: network.channels must name at least one level; received []")


def _known_keys() -> Iterator[str]:
    yield INITIAL_SIGMA
    for section in FLAT.values():
        yield from _keys(section)
    for name, section in NESTED.items():
        yield name
        yield from (f"{name}.{key}" for key in _keys(section) if key != "initial_sigma")


def _keys(section: Any) -> list[str]:
    """Return the names of a dataclass's fields as they are written in YAML."""
    defaults = section()
    assert len(_dump(section, defaults)) == len(fields(section))
    return list(_dump(section, defaults))


def _dump(section: Any, value: Any) -> dict[str, Any]:
    return TypeAdapter(section).dump_python(value, mode="json", by_alias=True)


def _dotted(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value and key != "objects":
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, section by section."""
    result = dict(below)
    for key, value in above.items():
        if key == "network" and isinstance(value, str):
            value = {"name": value}
        under = result.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping) and key != "objects":
            value = _merge(under, value)
        result[key] = value
    return result
