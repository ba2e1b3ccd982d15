"""Which images of a collection are meant."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from raydom.config.base import to_dict
from raydom.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a column of a manifest, such as ``cell_type=A172,BT474`` or ``height>=500``."""

    column: str
    operator: str
    """``=`` or ``!=`` (one of the values, none of them), or ``>=``, ``<=``, ``>`` or ``<`` (of numbers)."""
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The condition that was written so.

        Raises:
            ConfigError: If it is none.
        """
        match = re.fullmatch(r"\s*([^=!<>]+?)\s*(!=|>=|<=|=|>|<)\s*([^=!<>]+?)\s*", text)
        values = tuple(value.strip() for value in match[3].split(",")) if match else ()
        if match is None or "" in values or (match[2] not in ("=", "!=") and len(values) > 1):
            raise ConfigError(
                f"keep is a condition on a column, such as cell_type=A172,BT474, split!=test or 'height>=500'; "
                f"got {text!r}."
            )
        return cls(match[1], match[2], values)

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{','.join(self.values)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFilter:
    """Which images of a collection are meant; without a condition, all."""

    domain: str | None = None
    """Only images of this domain."""
    split: str | None = None
    """Only images of this split."""
    group: str | None = None
    """Only images of this group."""
    keep: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Only images that fulfil this condition on a column of the manifest: COLUMN=VALUE,VALUE, COLUMN!=VALUE, or >=, <=,
    > and < with a number ('height>=500'; height, width and num_channels are columns as well). Several must all hold. An
    image without a value fulfils none but !=."""

    def __post_init__(self) -> None:
        for condition in self.keep:
            Condition.parse(condition)

    def settings(self) -> dict[str, Any]:
        """What is asked for, as plain JSON values. None where nothing is: so a run that began before a further
        condition was known can go on."""
        return {name: value or None for name, value in to_dict(self).items()}
