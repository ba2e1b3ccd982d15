"""Stylised versions of the images of a collection, as ``raydom stylize`` makes them: what they are, and which are
meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa

from raydom.config import Condition
from raydom.errors import ConfigError, DataError
from raydom.storage import files
from raydom.storage.collection import Collection, Image, open_collection
from raydom.storage.columns import matching
from raydom.storage.receipts import RunFolder

ORIGINALS = "originals"
"""What the images themselves go by among the styles."""
COLUMNS = ("style", "method", "steps", "content_score")
"""What conditions may ask for beside the columns of the manifest."""


@dataclass(frozen=True, slots=True)
class Stylised:
    """A collection of stylised images, all of one style."""

    style: str
    """Name of the collection's folder."""
    collection: Collection
    """With ``COLUMNS`` in its table."""
    chosen: frozenset[str]
    """Ids of the images that are meant."""

    def images(self) -> list[Image]:
        """Those that are meant."""
        return [image for image in self.collection if image.image_id in self.chosen]


def open_stylised(uris: Sequence[str], select: Sequence[str] = ()) -> tuple[Stylised, ...]:
    """Open collections of stylised images, and choose among the images of all of them.

    Args:
        uris: The collections.
        select: Conditions on a column of the manifest or one of ``COLUMNS``, all of which must hold: ``style`` is the
            name of the collection's folder, ``method`` and ``steps`` are as it was stylised with, ``content_score`` is
            the mean over the image's blocks of how much of its structure was kept. Of collections that other programs
            made, those that are unknown are empty.

    Raises:
        ConfigError: If two have one name or one is called ``ORIGINALS``, for an unknown column, and where no image
            fulfils the conditions.
        DataError: If one is no collection.
    """
    names = [files.absolute(uri).rstrip("/").rsplit("/", 1)[-1] for uri in uris]
    if ORIGINALS in names:
        raise ConfigError(
            f"a collection of --augment is called {ORIGINALS}, which is what images that are not stylised go by. "
            "Rename its folder."
        )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ConfigError(
            f"two collections of --augment are called {', '.join(sorted(twice))}, and styles go by the names of the "
            "folders. Give each once, or rename the folders."
        )
    opened = [_described(open_collection(uri), name) for uri, name in zip(uris, names, strict=True)]
    if not opened:
        return ()
    known = pa.concat_tables([one.table for one in opened], promote_options="permissive")
    found = []
    for name, collection in zip(names, opened, strict=True):
        kept = np.ones(len(collection), bool)
        for condition in select:
            kept &= matching(Condition.parse(condition), collection.table, known, "--augment")
        ids = [image_id for image_id, keep in zip(collection.table["image_id"].to_pylist(), kept, strict=True) if keep]
        found.append(Stylised(name, collection, frozenset(ids)))
    if select and not any(one.chosen for one in found):
        raise ConfigError(f"no image of {', '.join(names)} fulfils --select {' and '.join(select)}.")
    return tuple(found)


def _described(collection: Collection, name: str) -> Collection:
    method, steps = _settings(collection)
    scores = _content_scores(collection)
    columns: dict[str, tuple[list[Any], pa.DataType]] = {
        "style": ([name] * len(collection), pa.string()),
        "method": ([method] * len(collection), pa.string()),
        "steps": ([steps] * len(collection), pa.int64()),
        "content_score": ([scores.get(record.image_id) for record in collection.records], pa.float64()),
    }
    table = collection.table.drop_columns([one for one in COLUMNS if one in collection.table.column_names])
    for column, (values, kind) in columns.items():
        table = table.append_column(column, pa.array(values, kind))
    return Collection(collection.uri, table)


def _settings(collection: Collection) -> tuple[str | None, int | None]:
    """Method and steps, where raydom made the collection."""
    uri = files.join(RunFolder.of(collection.uri).uri, "settings.json")
    style = files.read_json(uri).get("style", {}) if files.exists(uri) else {}
    method = style.get("method")
    own = style.get(method)
    return method, own.get("steps") if isinstance(own, dict) else None


def _content_scores(collection: Collection) -> dict[str, float]:
    scores: dict[str, list[float]] = {}
    for receipt in RunFolder.of(collection.uri).read_receipts().values():
        if receipt.content_score is not None:
            scores.setdefault(receipt.image_id, []).append(receipt.content_score)
    return {image_id: fmean(found) for image_id, found in scores.items()}


def check_versions(stylised: Stylised, originals: Collection) -> list[str]:
    """The ids of the chosen images that are versions of these originals.

    Raises:
        ConfigError: If there is none.
        DataError: If one differs from its original in size.
    """
    common = sorted(image_id for image_id in stylised.chosen if image_id in originals)
    uri = stylised.collection.uri
    if stylised.chosen and not common:
        raise ConfigError(
            f"{uri} has no version of an image that is trained on: it has {', '.join(sorted(stylised.chosen)[:3])}, "
            f"and {originals.uri} {', '.join(originals.table['image_id'].to_pylist()[:3])}. Images are paired by "
            f"image_id; make versions with raydom stylize --collection {originals.uri}."
        )
    for image_id in common:
        size, original = stylised.collection[image_id].spatial_shape, originals[image_id].spatial_shape
        if size != original:
            raise DataError(f"{uri}: {image_id} is {size} px, and its original {original} px. Stylise it again.")
    return common
