"""What a worker is said to need is what it holds: pixels, activations, maps of windows, views of objects."""

import numpy as np
import pytest

from raydom.config import BlockConfig, InstanceConfig, ModelSpec, NetworkConfig, PredictionConfig
from raydom.inference.job import BlockJob
from raydom.inference.memory import block_gib

OBJECTS = InstanceConfig(components=True, halo_px=50)
WINDOWED = NetworkConfig(name="u2netp", in_channels=1, base_channels=6)


def needs(make_collection, tmp_path, network, block_size, instances, **fields):
    (image,) = make_collection("c", {"a": np.zeros((1, 400, 600), np.uint8)})
    spec = ModelSpec(
        network=network, channels=("c0",), low=0.0, high=1.0, pixel_size_um=None, total_stride=4, receptive_field_px=20,
        **fields,
    )  # fmt: skip
    job = BlockJob(
        name="m", collection=str(tmp_path / "c"), out="o", model="threshold:9", blocks=BlockConfig(block_size=256),
        prediction=PredictionConfig(window_px=64), instances=instances,
    )  # fmt: skip
    return 2**30 * block_gib(job, spec, image, block_size, style_floats=0, style_halo=0)


@pytest.mark.parametrize(
    ("network", "exact", "instances", "expected"),
    [
        (NetworkConfig(base_channels=16), True, InstanceConfig(), 4 * 240**2 * (8 + 10 * 16)),
        # Windows of 64 px on either side of the block, of which one is in the network at a time.
        (WINDOWED, False, InstanceConfig(), 4 * (328**2 * (8 + 4) + 64**2 * 10 * 6)),
        # A view sees 50 px beyond its block, and 6 blocks are all that there are.
        (WINDOWED, False, OBJECTS, 300**2 * (55 + 6 * 4)),
    ],
)
def test_the_larger_of_two_stages_counts(make_collection, tmp_path, network, exact, instances, expected):
    assert needs(make_collection, tmp_path, network, 200, instances, exact=exact) == pytest.approx(expected)


def test_no_more_is_held_than_the_image_has(make_collection, tmp_path):
    unet = NetworkConfig(base_channels=16)
    assert needs(make_collection, tmp_path, unet, 4096, OBJECTS) == pytest.approx(4 * 400 * 600 * (8 + 10 * 16))
