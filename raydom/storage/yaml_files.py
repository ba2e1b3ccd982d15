"""YAML files that an option of a command names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from raydom.errors import ConfigError
from raydom.storage import files


def read_mapping(uri: str, option: str, expected: str) -> Mapping[str, Any]:
    """What the file holds; nothing of it is run.

    Args:
        uri: The file.
        option: That named it, such as ``--space``, for the errors.
        expected: What it should hold, and how that is written, for the errors.

    Raises:
        ConfigError: If the file is missing, is no YAML, or holds no mapping.
    """
    try:
        content = yaml.safe_load(files.read_bytes(uri))
    except FileNotFoundError:
        raise ConfigError(f"{option} {uri}: there is no such file. It holds {expected}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{option} {uri} cannot be read: {error}") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{option} {uri} holds no {expected}")
    return content
