"""Settings from files and from the command line, one laid over the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jawloc.config.keys import NESTED, OBJECTS, SECTION, check_known, current_key, dotted
from jawloc.config.messages import shown
from jawloc.errors import InputError


@dataclass(frozen=True)
class Layer:
    """Settings from one place, in one form, and how errors name that place."""

    source: str
    settings: dict[str, Any]


def read_layer(path: Path, hint: str) -> Layer:
    """Read a file's `jaw_loc_config`; `hint` says what to do where there is no such file."""
    content = read_yaml(path, "config", hint)
    if not isinstance(content, dict) or not isinstance(content.get(SECTION), dict):
        received = shown(content)
        if isinstance(content, dict):
            received = f"the keys {', '.join(map(str, content))}"
            received = shown(content[SECTION]) if SECTION in content else received
        raise InputError(f"{path}: the config must hold a mapping {SECTION}; received {received}")
    return layer_of(path.name, content[SECTION], path.resolve().parent)


def read_yaml(path: Path, kind: str, hint: str) -> Any:
    """Read a YAML file of settings.

    Parameters
    ----------
    kind : what the file is, for errors
    hint : what to do where there is no such file

    Raises
    ------
    InputError
        A file that is absent, can't be read or isn't YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such {kind} file; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the {kind} can't be read; {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: the {kind} must be YAML; {_yaml_problem(error)}") from error


def _yaml_problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())


def parse_override(text: str) -> Layer:
    """Read the KEY=VALUE of `--set`, the value as YAML; paths are the current folder's."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError(f"--set: the form is KEY=VALUE; received {text!r}")
    key = current_key(key, "--set")
    check_known(key, "--set")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set: the value of {key} must be YAML; received {value!r}") from error
    return layer_of("--set", nested(key, parsed), Path.cwd())


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return the mapping of mappings in which a dotted key has this value."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def layer_of(source: str, settings: Mapping[str, Any], folder: Path) -> Layer:
    """Bring settings into one form: sections as mappings, known keys only, absolute paths.

    Raises
    ------
    InputError
        An unknown key, a section that is no mapping, a number that is not finite.
    """
    result = {current_key(str(key), source): value for key, value in settings.items()}
    if isinstance(result.get("network"), str):  # `network: attention-unet` for short
        result["network"] = {"name": result["network"]}
    for name in NESTED.keys() & result.keys():
        if result[name] is None:  # a section whose every line is commented out
            result[name] = {}
        if not isinstance(result[name], dict):
            raise InputError(
                f"{source}: {name} must be a mapping of settings; received {shown(result[name])}"
            )
    for key, value in dotted(result):
        check_known(key, source)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(f"{source}: {key} must be finite; received {value}")
    return Layer(source, with_absolute_paths(result, folder))


def with_absolute_paths(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings with every path in them seen from `folder`."""
    result = dict(settings)
    folders = result.get("dicom_dirs")
    if isinstance(folders, list) and all(isinstance(f, str) for f in folders):
        result["dicom_dirs"] = [_absolute(f, folder) for f in folders]
    if isinstance(result.get("cache_dir"), str) and result["cache_dir"]:
        result["cache_dir"] = _absolute(result["cache_dir"], folder)
    return result


def _absolute(path: str, folder: Path) -> str:
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError:  # `~name` of nobody: a folder of that name, which is then not found
        return str(folder / path)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, section by section."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key)
        if isinstance(value, Mapping) and isinstance(under, Mapping) and key != OBJECTS:
            value = merge(under, value)
        result[key] = value
    return result


def source_of(keys: str | Sequence[str], layers: Sequence[Layer]) -> str:
    """Return the place that has the last word on a dotted key or section, or on one of several."""
    wanted = (keys,) if isinstance(keys, str) else keys
    for layer in reversed(layers):
        given = [key for key, _ in dotted(layer.settings)]
        if any(k == key or k.startswith(f"{key}.") for k in given for key in wanted):
            return layer.source
    return layers[0].source
