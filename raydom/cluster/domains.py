"""Domains for the images of a collection that has none: clusters of colours, written into its manifest."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from raydom.commands import FindDomainsConfig
from raydom.errors import ConfigError, DataError
from raydom.images.contrast import clahe
from raydom.images.domains import cluster_images, examples, hsv_features, mean_colour, principal_components
from raydom.images.intensity import fraction_statistics, to_fraction
from raydom.ingestion.run import collection_lease
from raydom.report.domains import domains_picture
from raydom.report.pictures import displayed
from raydom.storage import files
from raydom.storage.collection import MANIFEST, Collection, Image, open_collection, write_manifest
from raydom.storage.planes import open_planes
from raydom.storage.tables import write_table
from raydom.types import ImageRecord, Region

logger = logging.getLogger(__name__)

FORMER = "former_domain"
"""Column of the manifest in which domains are kept that were replaced."""
OURS = re.compile(r"cluster_\d+")
"""What domains are called that come from here."""
NUM_READERS = 8
OVERVIEW_PX = 256
"""The coarsest level whose longer side is at least so long is looked at."""
READ_PX = 1024
"""A longer side than this is not read whole (the image has no coarser level), but in windows."""
WINDOWS = 4
"""Windows of ``OVERVIEW_PX`` in each direction, where there is no coarse level."""
EXAMPLES = 3
"""Images of each cluster that are shown."""


@dataclass(frozen=True, slots=True)
class DomainsReport:
    """What was found."""

    collection: str
    """Where the domains are."""
    table: pa.Table
    """A row a cluster: domain, number of images, mean hue (degrees), saturation and value."""
    unreadable: tuple[tuple[str, str], ...]
    """Images without a domain, each with the error."""


def find_domains(
    config: FindDomainsConfig, progress: Callable[[int, int, int], None] = lambda done, total, failed: None
) -> DomainsReport:
    """Cluster the images of a collection by their colours, and write the clusters as their domains.

    No pixel is copied or changed: domains are a column of the manifest. It is that of the collection itself, or with
    ``out`` of a new collection that lists the same images where they are. Runs that were made of the collection stay
    valid, since what they hash of an image is its content.

    Args:
        progress: Called with the number of images looked at, of all, and of those that cannot be read.

    Raises:
        ConfigError: If there are domains already and ``overwrite`` is not set, fewer images than clusters, or another
            collection in the output.
        DataError: If there are fewer different images than clusters, or too few can be read.
    """
    collection = open_planes(config.collection)
    out = collection.uri if config.out is None else files.absolute(config.out)
    with contextlib.ExitStack() as stack:
        if out == collection.uri:
            _check_replaceable(collection, config)
            stack.enter_context(collection_lease(out))
            collection = open_collection(out)
        elif files.exists(files.join(out, MANIFEST)):
            raise ConfigError(f"{out} is a collection already; choose another --out.")
        if len(collection) < config.clusters:
            raise ConfigError(
                f"{collection.uri}: {len(collection)} images cannot make {config.clusters} clusters; choose fewer."
            )
        images, features, unreadable = _features(collection, config, progress)
        if len(images) < config.clusters:
            raise DataError(
                f"{collection.uri}: {len(unreadable)} of {len(collection)} images cannot be read, which leaves too few "
                f"for {config.clusters} clusters. The first: {'; '.join(unreadable[0])}"
            )
        clusters = cluster_images(features, config.clusters, config.seed)
        names = [f"cluster_{n + 1:0{len(str(config.clusters))}d}" for n in range(config.clusters)]
        domains = {image.image_id: names[cluster] for image, cluster in zip(images, clusters.tolist(), strict=True)}
        table = _table(names, clusters, features, config)
        write_table(files.join(out, "domains.parquet"), table)
        _picture(images, features, clusters, names, files.join(out, "domains.png"))
        write_manifest(out, [_placed(_with_domain(record, domains), collection, out) for record in collection.records])
    return DomainsReport(out, table, tuple(unreadable))


def restore_domains(uri: str) -> int:
    """Put back the domains that clusters replaced; returns the number of images whose domain changed.

    Raises:
        ConfigError: If no image has a cluster for its domain.
    """
    out = files.absolute(uri)
    with collection_lease(out):
        records = open_collection(out).records
        restored = [_restored(record) for record in records]
        number = sum(one.domain != other.domain for one, other in zip(records, restored, strict=True))
        if number == 0:
            raise ConfigError(f"{out}: no image has a domain that raydom domains gave it; there is nothing to undo.")
        write_manifest(out, restored)
    return number


def _check_replaceable(collection: Collection, config: FindDomainsConfig) -> None:
    known = sorted({record.domain for record in collection.records if record.domain is not None})
    if known and not config.overwrite:
        raise ConfigError(
            f"{collection.uri} has domains already ({', '.join(known[:6])}{', ...' if len(known) > 6 else ''}). "
            f"--overwrite replaces them (they are kept in the column {FORMER}, and --undo puts them back), or --out "
            "FOLDER lists the images with their clusters in a new collection."
        )


def _features(
    collection: Collection, config: FindDomainsConfig, progress: Callable[[int, int, int], None]
) -> tuple[list[Image], np.ndarray, list[tuple[str, str]]]:
    """The images that can be read, their features, and the others with their errors."""
    low, high = _intensity_range(collection.records)

    def look(image: Image) -> np.ndarray | str:
        try:
            seen = (to_fraction(_overview(image), image.statistics) - np.float32(low)) / np.float32(high - low)
            return hsv_features(clahe(seen) if config.clahe else seen)
        except (DataError, OSError) as error:
            return str(error)

    images: list[Image] = []
    features: list[np.ndarray] = []
    unreadable: list[tuple[str, str]] = []
    with ThreadPoolExecutor(config.workers or NUM_READERS, thread_name_prefix="domains") as pool:
        everything = list(collection)
        for image, found in zip(everything, pool.map(look, everything), strict=True):
            if isinstance(found, str):
                unreadable.append((image.image_id, found))
            else:
                images.append(image)
                features.append(found)
            progress(len(images) + len(unreadable), len(everything), len(unreadable))
    return images, np.array(features).reshape(len(images), -1), unreadable


def _intensity_range(records: Sequence[ImageRecord]) -> tuple[float, float]:
    """The fractions of the legal range that are black and white: all of it for 8 bits, else what the images use."""
    if all(record.dtype in ("uint8", "bool") for record in records):
        return 0.0, 1.0
    used = [fraction_statistics(record.statistics, record.dtype) for record in records]
    low = min(one.percentile(channel, 0.1) for one in used for channel in range(len(one.mean)))
    high = max(one.percentile(channel, 99.9) for one in used for channel in range(len(one.mean)))
    return (low, high) if high > low else (0.0, 1.0)


def _overview(image: Image) -> np.ndarray:
    """A small picture of an image, (channels, h, w): a coarse level, or windows side by side where there is none."""
    level = next(
        (n for n in reversed(range(image.num_levels)) if max(image.level_shape(n)) >= OVERVIEW_PX),
        0,
    )
    shape = image.level_shape(level)
    if max(shape) <= READ_PX:
        return image.numpy(level=level)
    starts = [sorted({int(start) for start in np.linspace(0, max(0, size - OVERVIEW_PX), WINDOWS)}) for size in shape]
    rows = []
    for top in starts[0]:
        windows = [Region((top, left), (top + OVERVIEW_PX, left + OVERVIEW_PX)) for left in starts[1]]
        parts = [image.numpy(window.clipped(Region.whole(shape)), level) for window in windows]
        rows.append(np.concatenate(parts, axis=2))
    return np.concatenate(rows, axis=1)


def _picture(
    images: Sequence[Image], features: np.ndarray, clusters: np.ndarray, names: Sequence[str], path: str
) -> None:
    points, shares = principal_components(features)
    chosen = [number for part in examples(points, clusters, EXAMPLES) for number in part]
    shown = {number: displayed(_overview(images[number])) for number in chosen}
    domains_picture(points, shares, clusters, names, shown, path)


def _with_domain(record: ImageRecord, domains: dict[str, str]) -> ImageRecord:
    extra = dict(record.extra)
    if record.domain is not None and not OURS.fullmatch(record.domain):
        extra[FORMER] = record.domain
    return replace(record, domain=domains.get(record.image_id), extra=tuple(sorted(extra.items())))


def _restored(record: ImageRecord) -> ImageRecord:
    if record.domain is None or not OURS.fullmatch(record.domain):
        return record
    extra = dict(record.extra)
    former = extra.pop(FORMER, None)
    return replace(record, domain=None if former is None else str(former), extra=tuple(sorted(extra.items())))


def _placed(record: ImageRecord, collection: Collection, out: str) -> ImageRecord:
    """The row in the manifest at ``out``, which lists images that stay where they are by their absolute URI."""
    return record if out == collection.uri else replace(record, uri=collection[record.image_id].uri)


def _table(names: Iterable[str], clusters: np.ndarray, features: np.ndarray, config: FindDomainsConfig) -> pa.Table:
    rows = []
    for cluster, name in enumerate(names):
        members = features[clusters == cluster]
        colour = mean_colour(members)
        rows.append({"domain": name, "images": len(members), "hue": colour.hue_degrees, "saturation": colour.saturation,
                     "value": colour.value})  # fmt: skip
    kinds = {"domain": pa.string(), "images": pa.int64(), "hue": pa.float64(), "saturation": pa.float64(),
             "value": pa.float64()}  # fmt: skip
    settings = {"clusters": config.clusters, "clahe": config.clahe, "seed": config.seed}
    return pa.Table.from_pylist(
        rows, schema=pa.schema(list(kinds.items()), metadata={"settings": json.dumps(settings)})
    )
