"""Reading, writing, hashing and checking configurations."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from raydom.errors import ConfigError


def require(ok: bool, message: str) -> None:
    """Raises a ConfigError with this message unless ``ok``."""
    if not ok:
        raise ConfigError(message)


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values (tuples become lists)."""
    return typing.cast("dict[str, Any]", json.loads(json.dumps(config, default=_fields)))


def usual_values(config: Any) -> dict[str, Any]:
    """What the fields of a configuration, and of those within it, have where they are not given, as plain JSON values;
    fields that must be given are left out."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found[field.name] = usual_values(value)
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
    return typing.cast("dict[str, Any]", json.loads(json.dumps(found)))


def _fields(value: Any) -> dict[str, Any]:
    """One level of a dataclass: ``asdict`` copies every number in it, which is slow for the statistics of images."""
    if not dataclasses.is_dataclass(value):
        raise TypeError(f"{type(value).__name__} is no plain JSON value: {value!r}")
    return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}


T = typing.TypeVar("T")


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """The configuration that ``to_dict`` was given.

    Raises:
        ConfigError: For an unknown field (naming the nearest known one) or a missing one.
    """
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    prefix = where + "." if where else ""
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}."
            raise ConfigError(f"unknown setting {prefix}{name}; {hint}")
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    require(not missing, f"missing setting {', '.join(prefix + name for name in missing)}.")
    return cls(**{name: _convert(hints[name], value, prefix + name) for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    """JSON lists become tuples and JSON objects become configurations, as the type hint says."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, Mapping):
        classes = [typing.cast("type[Any]", option) for option in options if dataclasses.is_dataclass(option)]
        if classes:  # of several the one that has these fields
            fitting = (one for one in classes if {*value} <= {field.name for field in dataclasses.fields(one)})
            return from_dict(next(fitting, classes[0]), value, where)
    if isinstance(value, list | tuple):
        for option in options:
            if typing.get_origin(option) is tuple:
                if all(type(item) in (float, int, str, bool, types.NoneType) for item in value):
                    return tuple(value)
                inner = typing.get_args(option)[0]
                return tuple(_convert(inner, item, where) for item in value)
    return value


def fingerprint(*parts: Any) -> str:
    """A short hash of plain values and configurations: equal exactly when they are equal."""
    plain = [to_dict(part) if dataclasses.is_dataclass(part) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:20]
