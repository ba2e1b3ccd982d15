"""Networks asked about parts of images: views are averaged, windows lie the same for any cut."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from raydom.config import (
    BlockConfig,
    ModelSpec,
    NetworkConfig,
    PredictionConfig,
    RunConfig,
)
from raydom.errors import ConfigError, DataError
from raydom.images.votes import voted
from raydom.inference.job import BlockJob
from raydom.inference.runner import execute_serially, run_jobs
from raydom.inference.segmenter import NetworkInput, Segmenter
from raydom.networks.build import build_network
from raydom.storage.model_run import write_model_run
from raydom.storage.receipts import RunFolder
from raydom.types import Region

QUIET = RunConfig(quiet=True, serial=True)
CPU = torch.device("cpu")


def spec_of(network, config, **fields):
    return ModelSpec(
        network=config, channels=("c0",), low=0.0, high=1.0, pixel_size_um=None,
        total_stride=network.total_stride, receptive_field_px=network.receptive_field_px,
        exact=getattr(network, "exact", True), **fields,
    )  # fmt: skip


def segmenter_of(config, **options):
    network = build_network(config, seed=1).eval()
    return Segmenter(network, spec_of(network, config), PredictionConfig(**options), None, CPU)


def asked(segmenter, pixels, region=None):
    shape = pixels.shape[1:]
    region = Region.whole(shape) if region is None else region
    passes = segmenter.passes(region, shape, shape)
    return segmenter.maps(NetworkInput(pixels, Region.whole(shape), shape, passes, region, shape))


SMALL = NetworkConfig(base_channels=4, depth=2)
PIXELS = np.random.default_rng(0).random((1, 48, 48)).astype(np.float32)


def test_with_eight_views_a_turned_image_gives_the_turned_answer() -> None:
    one, eight = segmenter_of(SMALL), segmenter_of(SMALL, tta=8)
    for turn in (lambda x: np.rot90(x, 1, (1, 2)), lambda x: x[:, ::-1]):
        turned = np.ascontiguousarray(turn(PIXELS))
        np.testing.assert_allclose(asked(eight, turned), turn(asked(eight, PIXELS)), atol=1e-6)
        assert np.abs(asked(one, turned) - turn(asked(one, PIXELS))).max() > 1e-3


def test_views_are_averaged_over_contrasts_and_scales() -> None:
    single = asked(segmenter_of(SMALL), PIXELS)
    other = asked(segmenter_of(SMALL), 0.5 + 1.5 * (PIXELS - 0.5))
    both = asked(segmenter_of(SMALL, tta_contrasts=(1.5,)), PIXELS)
    np.testing.assert_allclose(both, (single + other) / 2, atol=1e-6)
    smooth = ndimage.gaussian_filter(PIXELS, (0, 3, 3))
    scaled = asked(segmenter_of(SMALL, tta_scales=(0.5, 1.25)), smooth)
    assert scaled.shape == single.shape
    assert 0 < np.abs(scaled - asked(segmenter_of(SMALL), smooth)).mean() < 0.1


@pytest.mark.parametrize("options", [{}, {"tta": 8}, {"tta_scales": (0.75,), "tta_contrasts": (0.9,)}])
def test_a_part_of_an_image_gets_the_answer_of_the_whole(options) -> None:
    segmenter = segmenter_of(SMALL, **options)
    pixels = np.random.default_rng(1).random((1, 150, 131)).astype(np.float32)
    whole = asked(segmenter, pixels)
    for region in (Region((0, 0), (32, 40)), Region((61, 50), (100, 131)), Region((149, 0), (150, 131))):
        np.testing.assert_allclose(asked(segmenter, pixels, region), whole[(slice(None), *region.slices)], atol=1e-6)


def test_windows_lie_the_same_for_any_cut_and_one_that_holds_the_image_is_exact() -> None:
    config = NetworkConfig(name="u2netp")
    network = build_network(config, seed=1).eval()
    pixels = np.random.default_rng(2).random((1, 170, 139)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels)[None])[0].sigmoid().numpy()
    np.testing.assert_allclose(asked(segmenter_of(config, window_px=256), pixels), expected, atol=1e-6)
    segmenter = segmenter_of(config, window_px=96)
    whole = asked(segmenter, pixels)
    assert len(segmenter.windows(Region.whole((170, 139)), (170, 139))) > 3
    for region in (Region((0, 0), (64, 64)), Region((64, 64), (128, 128)), Region((160, 0), (170, 139))):
        np.testing.assert_array_equal(asked(segmenter, pixels, region), whole[(slice(None), *region.slices)])


def test_several_windows_and_views_at_a_time_get_the_answers_of_each_alone() -> None:
    class Counted(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network, self.sizes = network, []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.sizes.append(len(x))
            return self.network(x)

    spec = dataclasses.replace(spec_of(build_network(SMALL), SMALL), exact=False)
    network = Counted(build_network(SMALL, seed=1).eval())
    segmenter = Segmenter(network, spec, PredictionConfig(tta=8, window_px=64), None, CPU)
    pixels = np.random.default_rng(3).random((1, 130, 56)).astype(np.float32)  # windows of 64 x 56 px
    expected, num_views = asked(segmenter, pixels), len(network.sizes)
    segmenter.batch, network.sizes = 3, []
    np.testing.assert_allclose(asked(segmenter, pixels), expected, atol=1e-6)
    assert sum(network.sizes) == num_views
    wide = np.random.default_rng(3).random((1, 64, 130)).astype(np.float32)  # of 64 x 64 px
    network.sizes = []
    asked(segmenter, wide)
    assert sum(network.sizes) > 16 and set(network.sizes[:-1]) == {3}


def test_neighbouring_windows_have_no_seam() -> None:
    class Sided(nn.Module):
        """Tells how far left a pixel is in what the network sees: the worst for windows."""

        def forward(self, x):
            return torch.linspace(-3, 3, x.shape[-1]).expand(len(x), 1, x.shape[2], x.shape[3])

    spec = dataclasses.replace(spec_of(build_network(SMALL), SMALL), exact=False, total_stride=4)
    told = asked(
        Segmenter(Sided(), spec, PredictionConfig(window_px=64), None, CPU), np.zeros((1, 64, 400), np.float32)
    )
    assert np.abs(np.diff(told[0, 0])).max() < 0.08
    assert np.ptp(told) > 0.8


def test_votes() -> None:
    a, b, c, d = np.zeros((4, 6, 12), np.int32)
    a[1:5, 1:5] = 1  # seen by all, in one by half a column less
    b[1:5, 1:5] = 2
    c[1:5, 1:4] = 1
    d[1:5, 1:5] = 1
    b[1:5, 7:11] = 1  # seen by one
    labels, scores = voted([a, b, c, d], [np.array([0.9]), np.array([0.95, 0.5]), np.array([0.7]), np.array([0.7])])
    assert np.array_equal(labels, a)
    np.testing.assert_allclose(scores, [(0.9 + 0.5 + 0.7 + 0.7) / 4])
    labels, scores = voted([a * 0, b * 0], [np.array([]), np.array([])])
    assert not labels.any() and len(scores) == 0


def test_weights_that_are_not_finite_are_refused(tmp_path, make_collection) -> None:
    network = build_network(SMALL)
    weights = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    next(iter(weights.values()))[:] = np.nan
    run = str(tmp_path / "model")
    write_model_run(run, spec_of(network, SMALL), weights, {})
    job = BlockJob(name="s", collection=make_collection("c", {"a": PIXELS}).uri, out=str(tmp_path / "o"), model=run)
    with pytest.raises(DataError, match="some weights are not finite"):
        run_jobs([job], QUIET, execute_serially)
    assert not RunFolder.of(job.out).read_receipts()  # refused before the first block


def test_a_halo_means_nothing_to_networks_that_look_at_whole_images(tmp_path, make_collection) -> None:
    config = NetworkConfig(name="u2netp")
    network = build_network(config)
    run = str(tmp_path / "model")
    write_model_run(run, spec_of(network, config), {k: v.numpy() for k, v in network.state_dict().items()}, {})
    collection = make_collection("c", {"a": np.zeros((1, 40, 40), np.uint8)})
    job = BlockJob(name="s", collection=collection.uri, out=str(tmp_path / "o"), model=run, blocks=BlockConfig(halo=64))
    with pytest.raises(ConfigError, match=r"u2netp looks at whole images.*--window-px"):
        run_jobs([job], QUIET, execute_serially)
