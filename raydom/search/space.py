"""What is searched: fields of a configuration, each with the values that it may take."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import itertools
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydom.config import to_dict
from raydom.errors import ConfigError

RANGE = re.compile(r"\s*(\w+)\s*\(\s*([^,()]+?)\s*,\s*([^,()]+?)\s*\)\s*")
Values = dict[str, Any]
"""A value for each parameter, by its dotted path."""
RANGES = {
    "uniform": {},
    "loguniform": {"log": True},
    "int": {"integer": True},
    "logint": {"log": True, "integer": True},
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def draw(self, generator: np.random.Generator) -> Any:
        return self.values[int(generator.integers(len(self.values)))]

    @property
    def extremes(self) -> tuple[Any, ...]:
        """What is tried before a search begins: if these can be, all can."""
        return self.values

    def neighbour(self, value: Any, generator: np.random.Generator) -> Any:
        """A value beside this one."""
        place = self.values.index(value) if value in self.values else 0
        return self.values[int(np.clip(place + generator.choice((-1, 1)), 0, len(self.values) - 1))]


@dataclass(frozen=True, slots=True)
class Range:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False
    """Uniform in the logarithm."""
    integer: bool = False

    def draw(self, generator: np.random.Generator) -> float | int:
        if self.integer and not self.log:
            return int(generator.integers(int(self.low), int(self.high) + 1))
        bounds = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        drawn = float(generator.uniform(*bounds))
        return self._within(math.exp(drawn) if self.log else drawn)

    @property
    def extremes(self) -> tuple[float | int, ...]:
        return self._within(self.low), self._within(self.high)

    def neighbour(self, value: float, generator: np.random.Generator) -> float | int:
        """The value times 0.8 or 1.2, as Jaderberg et al. 2017 (arXiv:1711.09846) perturb."""
        return self._within(float(value) * float(generator.choice((0.8, 1.2))))

    def _within(self, value: float) -> float | int:
        value = min(max(value, self.low), self.high)
        return round(value) if self.integer else value


@dataclass(frozen=True, slots=True)
class Space:
    """What is searched, by the dotted paths of the fields."""

    parameters: dict[str, Choice | Range]

    @property
    def num_combinations(self) -> float:
        """Infinite where a parameter is a range."""
        return math.prod(len(one.values) if isinstance(one, Choice) else math.inf for one in self.parameters.values())

    def grid(self) -> Iterator[Values]:
        """Every combination; the last parameter changes first.

        Raises:
            ConfigError: If a parameter is a range.
        """
        ranges = [name for name, one in self.parameters.items() if isinstance(one, Range)]
        if ranges:
            raise ConfigError(
                f"a grid needs lists of values, and there are ranges: {', '.join(ranges)}. Give lists, or --searcher "
                "random or tpe."
            )
        choices = [one.values for one in self.parameters.values() if isinstance(one, Choice)]
        for combination in itertools.product(*choices):
            yield dict(zip(self.parameters, combination, strict=True))

    def draw(self, generator: np.random.Generator) -> Values:
        """Each parameter drawn for itself."""
        return {name: one.draw(generator) for name, one in self.parameters.items()}

    def neighbour(self, values: Values, generator: np.random.Generator) -> Values:
        """Each value moved a little."""
        return {name: self.parameters[name].neighbour(value, generator) for name, value in values.items()}

    def settings(self) -> dict[str, Any]:
        """As plain values, for a run folder."""
        return {name: to_dict(one) for name, one in self.parameters.items()}


def read_space(given: Mapping[str, Any], config: type, prefix: str, fixed: Sequence[str] = ()) -> Space:
    """The space that was written so.

    Names are dotted paths of fields. The prefix and leading parts may be left out where what is left names one field;
    of fields with that name in several style methods, it is each method's own.

    Args:
        given: By name a list of values, a range as text (``loguniform(1e2, 1e6)``), or one value.
        config: The class whose fields are searched.
        prefix: What names may begin with, such as ``style``.
        fixed: Fields that cannot be searched.

    Raises:
        ConfigError: For an unknown name (naming the nearest one), or values of the wrong type.
    """
    leaves = {path: hint for path, hint in leaf_fields(config) if path.split(".")[0] not in fixed}
    parameters: dict[str, Choice | Range] = {}
    for name, value in given.items():
        for path in _named(str(name), leaves, prefix):
            if path in parameters:
                raise ConfigError(f"space: {name} and another entry both mean {path}. Leave one of them out.")
            parameters[path] = _distribution(str(name), value, leaves[path])
    if not parameters:
        raise ConfigError("the space is empty: name at least one field to search, with a list of values or a range.")
    return Space(parameters)


def replaced(config: Any, values: Mapping[str, Any]) -> Any:
    """A configuration with these fields, by dotted path, replaced.

    Raises:
        ConfigError: If the configuration cannot be so.
    """
    own: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        first, _, rest = path.partition(".")
        if rest:
            inner.setdefault(first, {})[rest] = value
        else:
            own[first] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(
        config, **own, **{name: replaced(getattr(config, name), changes) for name, changes in inner.items()}
    )


def leaf_fields(config: type, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Dotted path and type of every field that is no configuration itself."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        hint, here = hints[field.name], (*path, field.name)
        if dataclasses.is_dataclass(hint):
            yield from leaf_fields(typing.cast("type", hint), here)
        else:
            yield ".".join(here), hint


def _named(name: str, leaves: Mapping[str, Any], prefix: str) -> list[str]:
    """The fields that a name means."""
    short = name.removeprefix(f"{prefix}.").replace("-", "_")
    if short in leaves:
        return [short]
    ending = [path for path in leaves if f".{path}".endswith(f".{short}")]
    if not ending:
        known = {f"{prefix}.{path}" for path in leaves}
        near = difflib.get_close_matches(f"{prefix}.{short}", known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(sorted(known))}."
        raise ConfigError(f"space: there is no field {name} to search; {hint}")
    if len(ending) > 1 and not all(path.split(".")[0] in ("nst", "strotss", "analogy") for path in ending):
        raise ConfigError(f"space: {name} could be {' or '.join(ending)}. Write which one.")
    return ending


def _distribution(name: str, value: Any, hint: Any) -> Choice | Range:
    match = RANGE.fullmatch(value) if isinstance(value, str) else None
    if match is not None and match[1] in RANGES:
        options = RANGES[match[1]]
        kinds = _kinds(hint)
        try:
            low, high = float(match[2]), float(match[3])
        except ValueError:
            raise ConfigError(f"space: {name}: {value} has bounds that are no numbers.") from None
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConfigError(f"space: {name}: {value} needs finite bounds.")
        if options.get("integer") and not (low.is_integer() and high.is_integer()):
            raise ConfigError(f"space: {name}: {value} needs whole numbers as bounds.")
        if not low < high or (options.get("log") and low <= 0):
            raise ConfigError(
                f"space: {name}: {value} needs its lower bound first"
                f"{', above 0' if options.get('log') else ''}; got {low:g} and {high:g}."
            )
        if not kinds & {int, float}:
            raise ConfigError(f"space: {name} is no number, so {value} cannot be; give a list of values.")
        if float not in kinds and not options.get("integer"):
            raise ConfigError(
                f"space: {name} is a whole number; write {'logint' if options else 'int'}(a, b) or a list."
            )
        return Range(low, high, **options)
    if match is not None:
        near = difflib.get_close_matches(match[1], RANGES, n=1)
        raise ConfigError(
            f"space: {name}: there is no {match[1]}(a, b); "
            + (f"did you mean {near[0]}?" if near else f"there is {', '.join(RANGES)}.")
        )
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise ConfigError(f"space: {name} has an empty list; give at least one value.")
    return Choice(tuple(_typed(name, one, hint) for one in values))


def _kinds(hint: Any) -> set[Any]:
    """The types that a field may have."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return {typing.get_origin(one) or one for one in options}


def _typed(name: str, value: Any, hint: Any) -> Any:
    """A value as the field takes it.

    Raises:
        ConfigError: If it is of another type.
    """
    kinds = _kinds(hint)
    if value is None and types.NoneType in kinds:
        return None
    if tuple in kinds:  # as lists, or as on the command line
        words = [word for word in value.split(",") if word] if isinstance(value, str) else value
        if not isinstance(words, list | tuple):
            raise ConfigError(f"space: {name} takes words, with commas between or as a list; got {value!r}.")
        return [str(word) for word in words]
    if isinstance(value, str) and kinds & {int, float}:  # YAML reads 1e3 as text
        with contextlib.suppress(ValueError):
            value = float(value)
    if float in kinds and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if int in kinds and isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) not in kinds:
        wanted = " or ".join(sorted(kind.__name__ for kind in kinds if kind is not types.NoneType))
        raise ConfigError(f"space: {name} is of type {wanted}; got {value!r}.")
    return value
