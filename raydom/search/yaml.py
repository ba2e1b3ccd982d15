"""YAML in and out: spaces that are read, and settings that commands read again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml

from raydom.storage import files
from raydom.storage.yaml_files import read_mapping


def read_yaml(uri: str) -> dict[str, Any]:
    """A mapping, its nested ones as dotted names.

    Raises:
        ConfigError: If the file is missing, or holds something else.
    """
    read = read_mapping(uri, "--space", "fields; write a line a field, such as nst.steps: [20, 40].")
    return flattened(read)


def flattened(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted names."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found |= flattened(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def changed(config: Any, usual: Any) -> dict[str, Any]:
    """The fields of a configuration that are not as usual, as the command line's YAML has them."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value, default = getattr(config, field.name), getattr(usual, field.name)
        if dataclasses.is_dataclass(value):
            inner = changed(value, default)
            found |= {field.name: inner} if inner else {}
        elif value != default:
            found[field.name] = list(value) if isinstance(value, tuple) else value
    return found


def write_yaml(uri: str, content: Mapping[str, Any], comment: str) -> None:
    """A mapping with a line of comment above it."""
    text = f"# {comment}\n{yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True)}"
    files.write_bytes_atomic(uri, text.encode())
