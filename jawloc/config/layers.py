"""Settings from files and from the command line, one laid over the other."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jawloc.config.keys import NESTED, OBJECTS, RENAMED, SECTION, check_known, dotted
from jawloc.config.messages import shown
from jawloc.errors import InputError, one_line

# Of a file of settings. A file within them that is plain has neither as many values nor levels.
MOST_BYTES, MOST_VALUES, MOST_LEVELS = 2**18, 2**17, 100


class Layer(NamedTuple):
    """Settings from one place by their dotted keys, and how errors name that place."""

    source: str
    settings: dict[str, Any]


def read_layer(path: Path, hint: str) -> Layer:
    """Read a file's `jaw_loc_config`; `hint` says what to do where there is no such file."""
    content = read_yaml(path, "config", hint, SECTION)
    received = shown(content)
    if isinstance(content, dict):
        if isinstance(content.get(SECTION), dict):
            return layer_of(path.name, content[SECTION], path.resolve().parent)
        keys = f"the keys {', '.join(map(str, content))}"
        received = shown(content[SECTION]) if SECTION in content else keys
    raise InputError(f"{path}: the config must hold a mapping {SECTION}; received {received}")


def read_yaml(path: Path, kind: str, hint: str, section: str | None = None) -> Any:
    """Read a YAML file; errors call it a `kind`, and `hint` says what to do where there is none.

    With a `section`, what the file's other keys hold is another tool's.

    Raises
    ------
    InputError
        A file that is absent, can't be read or isn't YAML, or whose aliases have no end.
    """
    try:
        content = load_yaml(_text(path, kind), section)
        _refuse_endless(content, path, kind)
        return content
    except FileNotFoundError:
        raise InputError(f"{path}: no such {kind} file; {hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the {kind} can't be read; {error}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: the {kind} must be YAML; {_yaml_problem(error)}") from error
    except ValueError as error:  # a date that no calendar has, a number of thousands of digits
        raise InputError(f"{path}: the {kind} can't be read; {one_line(error)}") from error
    except RecursionError:
        raise InputError(f"{path}: the {kind} is nested too deeply") from None


def _text(path: Path, kind: str) -> str:
    """Return what is in a file, unless it is none, or too large to be read into memory."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would be waited for
        raise InputError(f"{path}: the {kind} must be a file; it is a pipe, socket or device")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise InputError(
            f"{path}: the {kind} has at most {MOST_BYTES / 1e6:.1f} MB; this file has "
            f"{size / 1e6:.1f} MB"
        )
    return path.read_bytes().decode("utf-8-sig")


def load_yaml(text: str, section: str | None = None) -> Any:
    """Return a YAML text's content; `section` as for `read_yaml`.

    Raises
    ------
    yaml.YAMLError
        A text that is no YAML, or a key that stands twice in a mapping, of which YAML takes the
        last in silence.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        _refuse_doubled(node, set(), section)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_doubled(node: yaml.Node | None, seen: set[int], section: str | None = None) -> None:
    if node is None or id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _refuse_doubled(part, seen)
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in keys:
                problem = f"the key {key.value} stands here a second time"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            keys.add((key.tag, str(key.value)))
            if section in (None, key.value):
                _refuse_doubled(value, seen)


def _refuse_endless(content: Any, path: Path, kind: str) -> None:
    """Raise InputError where aliases let a text grow without end when it is written out."""
    size, inside = 0, [(content, 0)]
    while inside:
        value, depth = inside.pop()
        size += 1
        if size > MOST_VALUES or depth > MOST_LEVELS:
            raise InputError(
                f"{path}: the {kind} must have at most {MOST_VALUES} values, {MOST_LEVELS} levels "
                f"deep, with its aliases written out; it has more"
            )
        if isinstance(value, dict):
            inside += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple | set):
            inside += [(part, depth + 1) for part in value]


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
    try:
        return layer_of("--set", {key: load_yaml(value)}, Path.cwd())
    except yaml.YAMLError as error:
        raise InputError(f"--set: the value of {key} must be YAML; received {value!r}") from error


def layer_of(source: str, settings: Mapping[str, Any], folder: Path) -> Layer:
    """Bring settings into one form: known dotted keys, and paths seen from `folder`.

    Raises
    ------
    InputError
        An unknown key, or a section that is no mapping.
    """
    flat = {}
    for given, value in dotted(settings):
        section, dot, name = given.partition(".")
        key = f"{RENAMED.get(section, section)}{dot}{name}"
        if key != given:
            words = f"{source}: {given} is now called {key}; the old name still works"
            warnings.warn(words, stacklevel=2)
        if key == "network" and isinstance(value, str):  # `network: attention-unet` for short
            key = "network.name"
        elif section == OBJECTS and name:  # --set objects.jaw=1
            key, value = OBJECTS, {name: value}
        check_known(key, source)
        if key not in NESTED:
            flat[key] = _absolute_paths(key, value, folder)
        elif value not in (None, {}):  # an empty section: all its lines are commented out
            raise InputError(
                f"{source}: {key} must be a mapping of settings; received {shown(value)}"
            )
    return Layer(source, flat)


def _absolute_paths(key: str, value: Any, folder: Path) -> Any:
    if key in ("dicom_dirs", "corrections") and isinstance(value, list):
        return [absolute(path, folder) for path in value]
    return absolute(value, folder) if key in ("cache_dir", "corrections") and value else value


def absolute(path: Any, folder: Path) -> Any:
    """Return a path seen from a folder, with `~` resolved; what is no text stays as it is."""
    if not isinstance(path, str):
        return path
    try:
        return str(folder / Path(path).expanduser())
    except RuntimeError:  # `~name` of nobody: a folder of that name, which is then not found
        return str(folder / path)


def source_of(keys: Sequence[str], layers: Sequence[Layer]) -> str:
    """Return the last place that sets one of these dotted keys; if none does, the first place."""
    sources = [layer.source for layer in layers if layer.settings.keys() & set(keys)]
    return sources[-1] if sources else layers[0].source
