"""A look at the output of a neuron job: a picture of a part of an image, and how well its borders were judged."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydom.commands import NeuronShowConfig
from raydom.errors import ConfigError, DataError
from raydom.inference.neuron_job import NEURONS, SUPERPIXELS
from raydom.inference.object_tables import table_uri
from raydom.neurons.truth import Zero, edge_labels, truth_overlaps
from raydom.report.neuron_tables import edge_scores, reliability
from raydom.report.neurons import draw_neurons
from raydom.storage import files
from raydom.storage.collection import Image, open_collection
from raydom.storage.tables import read_table
from raydom.types import Region

logger = logging.getLogger(__name__)


def show(config: NeuronShowConfig) -> tuple[str, dict[str, pa.Table]]:
    """Draw a part of an image.

    Returns:
        Where the picture is, and by title the tables of the borders within that part, if there are some and a truth.

    Raises:
        ConfigError: For an image, a part or a label that there is not.
        DataError: For collections that do not belong together.
    """
    made, source = open_collection(config.neurons), open_collection(config.collection)
    if not len(made):
        raise ConfigError(f"{config.neurons}: no image is segmented. Make it with raydom neurons segment.")
    image_id = made.records[0].image_id if config.image is None else config.image
    found, image = made[image_id], source[image_id]
    missing = [name for name in (SUPERPIXELS, NEURONS) if name not in found.record.labels]
    if missing or found.spatial_shape != image.spatial_shape:
        what = f"has no label {missing[0]}" if missing else f"has {found.spatial_shape} px, not {image.spatial_shape}"
        raise DataError(
            f"{config.neurons}: {image_id} {what}; it was not made of {config.collection} by raydom neurons segment."
        )
    region = _region(config, image)
    raw, parts, neurons = (
        image.numpy(region)[0], found.labels(SUPERPIXELS).numpy(region), found.labels(NEURONS).numpy(region)
    )  # fmt: skip
    truth, zero = None, config.zero
    if config.label is not None:
        truth = image.labels(config.label).numpy(region)
    edges = _edges_within(table_uri(config.neurons, "edges", image_id), parts)
    uv = np.stack([edges["u"].to_numpy(), edges["v"].to_numpy()], axis=1).astype(np.int64)
    probabilities = edges["probability"].to_numpy()
    path = config.out or files.join(config.neurons, "neurons.png")
    told: Zero = "background" if zero == "background" else "boundary"
    draw_neurons(raw, parts, uv, probabilities, neurons, path, truth=truth, zero=told, plane=config.plane)
    if truth is None:
        return path, {}
    u, v = uv.astype(np.uint64).T
    try:
        labels = edge_labels(u, v, truth_overlaps(parts, truth), told)
    except DataError as error:  # a single superpixel, or a single object: there is the picture, and nothing to count
        logger.warning("%s: borders are not judged: %s", image_id, error)
        return path, {}
    return path, {
        "borders": edge_scores(probabilities, edges["cut"].to_numpy(zero_copy_only=False), labels),
        "what probabilities are worth": reliability(probabilities, labels),
    }


def _region(config: NeuronShowConfig, image: Image) -> Region:
    shape = image.plane_shape
    size = [min(config.size_px, side) for side in shape]
    start = [(side - part) // 2 for side, part in zip(shape, size, strict=True)] if not config.at else config.at
    region = Region(tuple(start), tuple(begin + part for begin, part in zip(start, size, strict=True)))
    if any(begin < 0 or begin >= side for begin, side in zip(region.start, shape, strict=True)):
        raise ConfigError(f"--at {config.at} is not within {image.image_id}, which is {shape} px.")
    return region.clipped(Region.whole(shape))


def _edges_within(uri: str, parts: np.ndarray) -> pa.Table:
    """The rows of the table of edges whose superpixels are both seen."""
    table, seen = read_table(uri), pa.array(np.unique(parts), pa.uint32())
    return table.filter(pc.and_(pc.is_in(table["u"], seen), pc.is_in(table["v"], seen)))
