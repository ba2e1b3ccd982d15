"""The tables of a neuron job: the borders of superpixels and what was decided, and the superpixels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from raydom.neurons.contacts import Contacts
from raydom.neurons.regions import Regions

EDGES = pa.schema(
    [
        ("image_id", pa.string()),
        ("u", pa.uint32()),
        ("v", pa.uint32()),
        ("faces", pa.int64()),
        ("probability", pa.float32()),
        ("cost", pa.float64()),
        ("cut", pa.bool_()),
    ]
)
"""A border a row: its superpixels, how many pairs of pixels touch there, how likely it is a membrane, what cutting it
costs in the multicut (joining pays where that is above 0), and whether it was cut."""
SUPERPIXEL_TABLE = pa.schema(
    [
        ("image_id", pa.string()),
        ("superpixel", pa.uint32()),
        ("neuron", pa.uint32()),
        ("size_px", pa.int64()),
        ("centroid", pa.list_(pa.float64())),
    ]
)
"""A superpixel a row: its neuron, its size, and its centre (of a volume z, y, x; else y, x), px."""


def edge_table(
    image_id: str, touching: Contacts, probabilities: np.ndarray, costs: np.ndarray, neuron_of: np.ndarray
) -> pa.Table:
    """The borders of an image.

    Args:
        image_id: Of the image.
        touching: Its borders.
        probabilities: Of each being a membrane.
        costs: Of cutting each.
        neuron_of: By superpixel.
    """
    columns = {
        "image_id": pa.array([image_id]).take(pa.array(np.zeros(len(touching.u), np.int64))),
        "u": touching.u.astype(np.uint32),
        "v": touching.v.astype(np.uint32),
        "faces": touching.faces,
        "probability": probabilities.astype(np.float32),
        "cost": costs,
        "cut": neuron_of[touching.u] != neuron_of[touching.v],
    }
    return pa.table(columns, schema=EDGES)


def superpixel_table(image_id: str, found: Regions, neuron_of: np.ndarray) -> pa.Table:
    """The superpixels of an image; ``neuron_of`` tells the neuron by superpixel."""
    centroid = found.coordinates / np.maximum(found.voxels, 1)[:, None]
    offsets = np.arange(len(centroid) + 1, dtype=np.int32) * centroid.shape[1]
    columns = {
        "image_id": pa.array([image_id]).take(pa.array(np.zeros(len(found.label), np.int64))),
        "superpixel": found.label.astype(np.uint32),
        "neuron": neuron_of[found.label].astype(np.uint32),
        "size_px": found.voxels,
        "centroid": pa.ListArray.from_arrays(pa.array(offsets), pa.array(centroid.ravel())),
    }
    return pa.table(columns, schema=SUPERPIXEL_TABLE)
