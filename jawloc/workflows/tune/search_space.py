"""What is searched: a YAML file of ranges and choices, checked, and asked of a trial."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from jawloc.config import Config, change_config
from jawloc.config.keys import check_known
from jawloc.config.layers import read_yaml
from jawloc.config.messages import shown
from jawloc.errors import InputError
from jawloc.workflows.tune.searchable_settings import check_conditions, check_searchable

if TYPE_CHECKING:
    from optuna import Trial

SECTION = "search"
# What is tried of a space before its first trial: combinations of ends, whole numbers between two.
MOST_CORNERS, MOST_BETWEEN = 4096, 64


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if both are whole.

    Raises
    ------
    ValueError
        Nothing in between, a logarithm of zero or less, a step that can't be one.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low must be below high; received {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"with log, low must be above 0; received {self.low:g}")
        if self.step is not None and (self.log or not 0 < self.step <= self.high - self.low):
            raise ValueError(
                f"step must be above 0, at most high - low, and without log; received {self.step:g}"
            )

    @property
    def is_whole(self) -> bool:
        """Say whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> tuple[Any, Any]:
        """Return the lowest and the highest value."""
        return self.low, self.high

    @property
    def between(self) -> Sequence[Any]:
        """Return whole numbers between the ends: a setting may know only some."""
        if not self.is_whole:
            return ()
        step = int(self.step or 1)
        return range(int(self.low) + step, int(self.high), step)[:MOST_BETWEEN]

    def suggest(self, trial: Trial, key: str) -> Any:
        """Return this trial's value."""
        if self.is_whole:
            step = int(self.step or 1)
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log, step=step)
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)

    def nearest(self, value: Any) -> Any:
        """Return what the study knows a value by: itself, or the nearest end."""
        return type(self.low)(min(max(value, self.low), self.high))


@dataclass(frozen=True)
class Choice:
    """One of some values of any kind."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Return all values."""
        return self.values

    @property
    def between(self) -> Sequence[Any]:
        """Return the values that may not be among those tried as ends."""
        return self.values[1:-1]

    def suggest(self, trial: Trial, key: str) -> Any:
        """Return this trial's value."""
        # a study keeps texts and numbers only
        texts = [_as_text(value) for value in self.values]
        return self.values[texts.index(trial.suggest_categorical(key, texts))]

    def nearest(self, value: Any) -> Any:
        """Return what the study knows a value by; of one that isn't there, the first."""
        return _as_text(value if value in self.values else self.values[0])


@dataclass(frozen=True)
class Space:
    """Ranges and choices by their dotted keys, and the file's name for errors."""

    source: str
    parameters: Mapping[str, Range | Choice]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Return the settings that a trial tries."""
        return {key: each.suggest(trial, key) for key, each in self.parameters.items()}

    def apply(self, config: Config, values: Mapping[str, Any]) -> Config:
        """Return the config with these settings changed.

        Raises
        ------
        InputError
            Values that don't go together.
        """
        return change_config(config, values, source=self.source)

    def default(self, config: Config) -> dict[str, Any]:
        """Return the config's own values as the study's parameters, each within its range."""
        params = config.as_params()
        own = dict(params)
        for key, each in self.parameters.items():
            if isinstance(each, Choice) and params[key] not in each.values:
                # perhaps "auto", which comes to the same
                same = (v for v in each.values if self._params(config, key, v) == params)
                own[key] = next(same, params[key])
        return {key: each.nearest(own[key]) for key, each in self.parameters.items()}

    def consequences(self, config: Config) -> dict[str, dict[str, Any]]:
        """Say which other settings the ends of the space change, as "auto" has it."""
        params, known = config.as_params(), {}
        for key, each in self.parameters.items():
            for value in each.ends:
                then = self._params(config, key, value) or params
                differing = {k for k in then if k != key and params.get(k) != then[k]}
                if differing:
                    known[f"{key} {value}"] = {k: then[k] for k in sorted(differing)}
        return known

    def _params(self, config: Config, key: str, value: Any) -> dict[str, Any] | None:
        """Return the config's settings with one changed; None if it needs others changed too."""
        try:
            return self.apply(config, {key: value}).as_params()
        except InputError:
            return None

    def as_mapping(self) -> dict[str, Any]:
        """Return the space as its file holds it, every key written out."""
        return {
            key: list(each.values) if isinstance(each, Choice) else dict(vars(each))
            for key, each in self.parameters.items()
        }

    def check(self, config: Config) -> None:
        """Try the corners of the space on the config, before any trial runs into one.

        Raises
        ------
        InputError
            A value that no training can have, values that don't go together, or a setting that
            makes no difference to any trial.
        """
        configs = []
        for values in self._to_try():
            try:
                configs.append(self.apply(config, values))
            except InputError as error:
                tried = ", ".join(f"{key} {value}" for key, value in values.items())
                _, _, mistake = str(error).partition(": ")
                raise InputError(f"{self.source}: with {tried}, {mistake}") from None
        check_conditions(self.parameters, configs, self.source)

    def _to_try(self) -> Iterator[dict[str, Any]]:
        """Yield the corners, then from the first of them on the values between, one by one."""
        ends = [each.ends for each in self.parameters.values()]
        if math.prod(map(len, ends)) > MOST_CORNERS:
            ends = [(each[0], each[-1]) for each in ends]
        for corner in itertools.islice(itertools.product(*ends), MOST_CORNERS):
            yield dict(zip(self.parameters, corner, strict=True))
        first = {key: each.ends[0] for key, each in self.parameters.items()}
        for key, each in self.parameters.items():
            yield from (first | {key: value} for value in each.between)


def read_space(path: Path) -> Space:
    """Read a space from its file.

    Raises
    ------
    InputError
        No such file, no mapping `search`, an unknown key, a setting that trials share, an empty
        range or choice.
    """
    content = read_yaml(path, "space", "--space must name one")
    searched = content.get(SECTION) if isinstance(content, dict) else None
    if not isinstance(searched, dict) or not searched:
        raise InputError(
            f"{path}: a space must hold a mapping {SECTION} of at least one setting; received "
            f"{shown(content if searched is None else searched)}"
        )
    return Space(path.name, {key: parameter(path.name, key, searched[key]) for key in searched})


def parameter(source: str, key: Any, value: Any) -> Range | Choice:
    """Check what a space says of a key.

    Raises
    ------
    InputError
    """
    check_known(str(key), source)
    check_searchable(key, source)
    if isinstance(value, list):
        if not value:
            raise InputError(f"{source}: {key} must be a choice of at least one value; received []")
        return Choice(tuple(value))
    if not isinstance(value, dict):
        raise InputError(
            f"{source}: {key} must be a range {{low: ..., high: ...}} or a list of choices; "
            f"received {shown(value)}"
        )
    try:
        # by way of JSON, where strict means that a text is no number
        return TypeAdapter(Range).validate_json(json.dumps(_with_float_ends(value), default=str))
    except ValidationError as error:
        raise InputError(f"{source}: {key}: {_mistake(error, value)}") from None


def _with_float_ends(value: Mapping[str, Any]) -> dict[str, Any]:
    """Let a range of one whole and one other number be one of numbers, not of whole ones."""
    numbers = [value.get(end) for end in ("low", "high", "step")]
    if not any(isinstance(number, float) for number in numbers):
        return dict(value)
    return {
        name: float(part) if isinstance(part, int) and not isinstance(part, bool) else part
        for name, part in value.items()
    }


def _mistake(error: ValidationError, value: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    part = first["loc"][0]
    if first["type"] == "missing":
        return f"a range needs {part}; received {shown(dict(value))}"
    if first["type"] == "unexpected_keyword_argument":
        return f"a range has low, high, log and step; received {part!r}"
    kind = "true or false" if part == "log" else "a number"
    return f"{part} must be {kind}; received {shown(value[str(part)])}"


def _as_text(value: Any) -> Any:
    """Return a value as a study can keep it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()
