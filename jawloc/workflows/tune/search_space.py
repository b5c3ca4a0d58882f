"""The search space: a YAML file of ranges and choices, its checks, and the values of a trial."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from optuna import Trial
from pydantic import ConfigDict, TypeAdapter, ValidationError

from jawloc.config import LAB_INITIAL_SIGMA, Config, change_config
from jawloc.config.keys import INITIAL_SIGMA, check_known
from jawloc.config.layers import read_yaml
from jawloc.config.messages import shown
from jawloc.errors import InputError
from jawloc.workflows.tune.searchable_settings import (
    check_conditions,
    check_searchable,
    lacks_initial_sigma,
)

SECTION = "search"
# Tried before the first trial: combinations of ends, and whole numbers between two ends.
MOST_CORNERS, MOST_BETWEEN = 4096, 64
LARGEST = 1e300  # of a number to search, far below what a float holds


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole numbers if low, high and step are."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("low", "high", "step")}
        if any(abs(number or 0) > LARGEST for number in numbers.values()):  # before it overflows
            raise ValueError(f"low, high and step must be numbers of at most {LARGEST:g}")
        if any(isinstance(number, float) for number in numbers.values()):
            for name, number in numbers.items():
                object.__setattr__(self, name, None if number is None else float(number))
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low must be below high; received {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"with log, low must be above 0; received {self.low:g}")
        if self.step is not None and (self.log or not 0 < self.step <= self.high - self.low):
            raise ValueError(
                f"step must be above 0, at most high - low, and without log; received {self.step:g}"
            )

    @property
    def ends(self) -> tuple[Any, Any]:
        """The lowest and the highest value."""
        return self.low, self.high

    @property
    def between(self) -> Sequence[Any]:
        """Whole numbers between the ends, of which a setting may accept only some."""
        if isinstance(self.low, float):
            return ()
        step = int(self.step or 1)
        return range(self.low + step, int(self.high), step)[:MOST_BETWEEN]

    def suggest(self, trial: Trial, key: str) -> Any:
        """Return this trial's value."""
        if isinstance(self.low, float):
            return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)
        return trial.suggest_int(key, self.low, self.high, log=self.log, step=self.step or 1)

    def nearest(self, value: Any) -> Any:
        """Return the nearest value of the range, on one of its steps, as the study stores it."""
        within = min(max(value, self.low), self.high)
        if self.step is not None:
            most = math.floor((self.high - self.low) / self.step + 1e-8)  # 0.3 / 0.1 is below 3
            within = self.low + self.step * min(most, round((within - self.low) / self.step))
        return type(self.low)(within)


@dataclass(frozen=True)
class Choice:
    """One of some values of any kind."""

    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values."""
        return self.values

    @property
    def between(self) -> Sequence[Any]:
        """The values that are left out where only the first and the last are tried."""
        return self.values[1:-1]

    def suggest(self, trial: Trial, key: str) -> Any:
        """Return this trial's value."""
        texts = [_storable(value) for value in self.values]
        return self.values[texts.index(trial.suggest_categorical(key, texts))]

    def nearest(self, value: Any) -> Any:
        """Return a value, or the first if it is not a choice, as the study stores it."""
        return _storable(value if value in self.values else self.values[0])


@dataclass(frozen=True)
class Space:
    """Ranges and choices by their dotted keys, and the file's name for errors."""

    source: str
    parameters: Mapping[str, Range | Choice]

    def with_initial_sigma(self, config: Config) -> Space:
        """Return the space with a choice of the initial sigma, if what is searched needs one.

        Where the settings leave it to "auto", sigma doesn't shrink: a search of when it does then
        chooses between that, as the first trial has it, and the lab's sigma to begin with.
        """
        if not lacks_initial_sigma(self.parameters, config):
            return self
        minimum = self.parameters.get("curriculum.minimum_sigma")
        widest = max(map(float, minimum.ends)) if minimum else 0.0
        choice = Choice(("auto", max(LAB_INITIAL_SIGMA, widest)))
        return replace(self, parameters={**self.parameters, INITIAL_SIGMA: choice})

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Return the settings of a trial."""
        return {key: each.suggest(trial, key) for key, each in self.parameters.items()}

    def apply(self, config: Config, values: Mapping[str, Any]) -> Config:
        """Return the config with these settings changed; an InputError if they contradict."""
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
        """Return the other settings that the ends of the space change, where those are "auto"."""
        params, changed = config.as_params(), {}
        for key, each in self.parameters.items():
            for value in each.ends:
                then = self._params(config, key, value) or params
                if differing := {k for k in then if k != key and params.get(k) != then[k]}:
                    changed[f"{key} {value}"] = {k: then[k] for k in sorted(differing)}
        return changed

    def _params(self, config: Config, key: str, value: Any) -> dict[str, Any] | None:
        """Return the config's settings with one changed; None if others must change with it."""
        try:
            return self.apply(config, {key: value}).as_params()
        except InputError:
            return None

    def as_mapping(self) -> dict[str, Any]:
        """Return the space as in its file, every key written out."""
        return {
            key: list(each.values) if isinstance(each, Choice) else dict(vars(each))
            for key, each in self.parameters.items()
        }

    def check(self, config: Config) -> None:
        """Raise an InputError for a corner that is invalid or a setting without an effect."""
        configs = []
        for values in self._to_try():
            try:
                configs.append(self.apply(config, values))
            except InputError as error:
                tried = ", ".join(f"{key} {value}" for key, value in values.items())
                mistake = str(error).partition(": ")[2]
                raise InputError(f"{self.source}: with {tried}, {mistake}") from None
        check_conditions(self.parameters, configs, self.source)

    def _to_try(self) -> Iterator[dict[str, Any]]:
        """Yield the corners, then the first of them with each of the values between in turn."""
        ends = [each.ends for each in self.parameters.values()]
        if math.prod(map(len, ends)) > MOST_CORNERS:
            ends = [(each[0], each[-1]) for each in ends]
        for corner in itertools.islice(itertools.product(*ends), MOST_CORNERS):
            yield dict(zip(self.parameters, corner, strict=True))
        first = {key: each.ends[0] for key, each in self.parameters.items()}
        for key, each in self.parameters.items():
            yield from (first | {key: value} for value in each.between)


def read_space(path: Path) -> Space:
    """Read a space from its file; an InputError names the first mistake in it."""
    content = read_yaml(path, "space", "--space must name one")
    searched = content.get(SECTION) if isinstance(content, dict) else None
    if not isinstance(searched, dict) or not searched:
        raise InputError(
            f"{path}: a space must hold a mapping {SECTION} of at least one setting; received "
            f"{shown(content if searched is None else searched)}"
        )
    return Space(path.name, {key: parameter(path.name, key, searched[key]) for key in searched})


def parameter(source: str, key: Any, value: Any) -> Range | Choice:
    """Return the range or choice of a key; an InputError if the key or the value is invalid."""
    check_known(str(key), source)
    check_searchable(key, source)
    if isinstance(value, list) and value:
        return Choice(tuple(value))
    if isinstance(value, list):
        raise InputError(f"{source}: {key} must be a choice of at least one value; received []")
    if not isinstance(value, dict):
        raise InputError(
            f"{source}: {key} must be a range {{low: ..., high: ...}} or a list of choices; "
            f"received {shown(value)}"
        )
    try:
        # as JSON, because a strict dataclass takes no dict
        return TypeAdapter(Range).validate_json(json.dumps(value, default=str))
    except ValidationError as error:
        raise InputError(f"{source}: {key}: {_mistake(error, value)}") from None


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


def _storable(value: Any) -> Any:
    """Return a value, or its text if it is not one that a study can store."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()
