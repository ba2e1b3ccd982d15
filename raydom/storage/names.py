"""Names that come with data of others, and must not lead out of the folders that are named after them."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from raydom.errors import DataError

NO_NAME = r"[/\\\x00-\x1f]|^\.{0,2}$"
LEAVES = r"^[/\\]|(^|[/\\])\.\.([/\\]|$)"
"""Paths that do not stay below where they begin."""
ELSEWHERE = r"^/|://|::"
"""Paths that are meant to lie elsewhere: those of images that were indexed in place."""


def check_manifest_names(table: pa.Table, where: str) -> None:
    """Refuse a manifest by which files beside a collection, or beside what is made of it, could be read or overwritten.

    Args:
        table: With the columns ``image_id``, ``uri`` and ``labels``.
        where: What is told as its place.

    Raises:
        DataError: For an ``image_id`` that is no name, a relative ``uri`` that leaves the collection, and a label that
            leaves its image.
    """
    relative = table["uri"].filter(pc.invert(pc.match_substring_regex(table["uri"], ELSEWHERE)))
    labels = pc.list_flatten(table["labels"])
    for what, names, pattern in (
        ("image_id", table["image_id"], NO_NAME),
        ("uri", relative, LEAVES),
        ("label", labels, LEAVES),
    ):
        bad = names.filter(pc.match_substring_regex(names, pattern))
        if len(bad):
            raise _refusal(f"{where}: the {what} {bad[0].as_py()!r}")


def check_paths(paths: Iterable[str], where: str) -> None:
    """Refuse paths in the metadata of an image that lead out of it.

    Raises:
        DataError: Naming the first of them.
    """
    for path in paths:
        if re.search(LEAVES, path):
            raise _refusal(f"{where}: the path {path!r}")


def _refusal(what: str) -> DataError:
    return DataError(
        f"{what} leads out of the folder that it belongs to, so that other files would be read or overwritten. Use "
        "data of which you know where it comes from, or make it anew by raydom ingest."
    )
