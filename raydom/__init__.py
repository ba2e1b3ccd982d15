"""Domain adaptation of microscopy image collections on Ray: stylise, train, segment, compare.

``import raydom`` is quick: each public name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "ConfigError": "raydom.errors",
    "DataError": "raydom.errors",
    "Region": "raydom.types",
    "open_collection": "raydom.storage.collection",
    "open_model_run": "raydom.storage.model_run",
    "stylize": "raydom.algorithms.arrays",
    "methods": "raydom.algorithms.styles",
}

__all__ = ["ConfigError", "DataError", "Region", "methods", "open_collection", "open_model_run", "stylize"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'raydom' has no attribute {name!r}; it offers {', '.join(__all__)}.")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
