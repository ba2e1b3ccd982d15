"""Generators in blocks: pixels do not depend on the cut, and what does not fit is refused before the first block."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import raydom
from raydom.config import BlockConfig, DomainSpec, GeneratorConfig, GeneratorSpec, RunConfig, StyleConfig
from raydom.errors import ConfigError
from raydom.images.intensity import image_statistics
from raydom.inference.job import BlockJob, check_job, plan_job
from raydom.inference.memory import check_memory
from raydom.inference.runner import execute_serially, run_jobs
from raydom.networks.generators import Generator
from raydom.storage.collection import open_collection
from raydom.storage.model_run import write_model_run

QUIET = RunConfig(quiet=True, serial=True)
RNG = np.random.default_rng(3)


def picture(shape: tuple[int, int], channels: int = 1) -> np.ndarray:
    """Coarse blobs whose contrast grows from left to right, so that tiles have unlike statistics."""
    coarse = np.kron(RNG.random((channels, -(-shape[0] // 4), -(-shape[1] // 4))), np.ones((1, 4, 4)))
    coarse = coarse[:, : shape[0], : shape[1]] + 0.2 * RNG.random((channels, *shape))
    return (40 + 140 * coarse * np.linspace(0.2, 1, shape[1])).astype(np.uint8)


@pytest.fixture
def make_generators(tmp_path):
    """Writes a run of generators with random weights and strong contrast."""

    def make(name="gan", channels=1, seed=0, dtypes=("uint8", "uint8"), **fields):
        shape = GeneratorConfig(channels=channels, base_channels=4, blocks=1)
        both = {n: Generator(shape, seed + i) for i, n in enumerate(("source_to_target", "target_to_source"))}
        for generator in both.values():
            generator.decoder[6].weight.data *= 20
        pixels = [RNG.integers(20, 90, (channels, 9, 9)).astype(dtype) for dtype in dtypes]
        spec = {
            "kind": "cyclegan", "generator": shape, "channels": tuple(f"c{n}" for n in range(channels)),
            "domains": tuple(
                DomainSpec(name=n, low=0.0, high=1.0, dtype=p.dtype.name, statistics=image_statistics(p))
                for n, p in zip(("s", "t"), pixels, strict=True)
            ),
            "pixel_size_um": None, "total_stride": 4, "reach_px": both["source_to_target"].reach_px,
        } | fields  # fmt: skip
        weights = {key: value.numpy() for key, value in nn.ModuleDict(both).state_dict().items()}
        write_model_run(str(tmp_path / name), GeneratorSpec(**spec), weights, {})
        return str(tmp_path / name)

    return make


def job_of(collection, generator, out, block_size=256, **options):
    style = StyleConfig(method="cyclegan", generator=generator, **options)
    return BlockJob(
        name="s", collection=collection.uri, out=str(out), style=style, blocks=BlockConfig(block_size=block_size)
    )


def stylised(job, name="img"):
    (report,) = run_jobs([job], QUIET, execute_serially)
    assert report.ok
    return open_collection(job.out)[name].numpy(), report


@pytest.mark.parametrize("overview_px", [64, 1024])  # smaller than the image, and larger
def test_blocks_are_those_of_any_other_cut(tmp_path, make_collection, make_generators, overview_px):
    collection, run = make_collection("c", {"img": picture((157, 131))}), make_generators()
    found = {}
    for size in (32, 64, 256):
        found[size], report = stylised(job_of(collection, run, tmp_path / f"o{size}", size, overview_px=overview_px))
    whole = found[256].astype(int)
    assert whole.std() > 20 and report.content_scores
    assert all(np.abs(found[size].astype(int) - whole).max() <= 1 for size in (32, 64))


def test_an_image_of_the_overview_goes_through_as_a_whole(tmp_path, make_collection, make_generators):
    pixels, run = picture((61, 47)), make_generators()
    made, _ = stylised(job_of(make_collection("c", {"img": pixels}), run, tmp_path / "o", 32))
    generator = Generator(GeneratorConfig(channels=1, base_channels=4, blocks=1), 1).eval()  # target to source
    generator.decoder[6].weight.data *= 20
    with torch.no_grad():
        expected = generator(torch.from_numpy(pixels[None] / np.float32(255)) * 2 - 1)[0]
    assert np.abs(made - ((expected.numpy() + 1) / 2 * 255)).max() <= 0.51
    assert np.array_equal(raydom.stylize(pixels[0], None, "cyclegan", generator=run), made[0])
    other = raydom.stylize(pixels[0], None, "cyclegan", generator=run, direction="source-to-target")
    assert not np.array_equal(other, made[0])


def test_naive_tiles_are_unlike_the_whole(make_generators):
    """What the shared statistics are for."""
    pixels, run = picture((128, 128))[0], make_generators()
    whole = raydom.stylize(pixels, None, "cyclegan", generator=run).astype(int)
    tile = raydom.stylize(np.ascontiguousarray(pixels[:, :64]), None, "cyclegan", generator=run)
    assert np.abs(tile[:, :32] - whole[:, :32]).mean() > 3


def test_pixels_keep_their_dtype_and_floating_ones_have_the_scale_of_the_training(make_generators):
    pixels = picture((40, 40), 3)
    run = make_generators(channels=3)
    as16 = raydom.stylize(pixels.astype(np.uint16) * 257, None, "cyclegan", channel_axis=0, generator=run)
    made = raydom.stylize(pixels, None, "cyclegan", channel_axis=0, generator=run)
    assert as16.dtype == np.uint16 and np.abs(as16 / 257 - made).max() <= 0.51
    floats = make_generators("floats", dtypes=("float32", "float32"))
    made = raydom.stylize(pixels[0] * np.float32(10), None, "cyclegan", generator=floats)
    assert made.dtype == np.float32 and 15 < made.min() < made.max() < 95


def test_a_run_is_told_by_its_content(tmp_path, make_collection, make_generators):
    collection = make_collection("c", {"img": picture((40, 40))})
    one, moved, other = make_generators("a"), make_generators("b"), make_generators("c", seed=5)
    style = {run: plan_job(job_of(collection, run, tmp_path / "o")).settings["style"] for run in (one, moved, other)}
    assert style[one]["weights"] != style[other]["weights"] and "generator" not in style[one]
    turned = plan_job(job_of(collection, one, tmp_path / "o", direction="source-to-target")).settings["style"]
    assert turned["direction"] != style[one]["direction"]


def test_what_does_not_fit_is_refused_by_name(tmp_path, make_collection, make_generators, make_model, caplog):
    collection = make_collection("c", {"img": picture((40, 40))})
    with pytest.raises(ConfigError, match=r"the generator has 3 channels, the images of .* have 1"):
        check_job(job_of(collection, make_generators(channels=3), tmp_path / "o"))
    with pytest.raises(ConfigError, match="is a run of a segmentation model"):
        check_job(job_of(collection, make_model(), tmp_path / "o"))
    with pytest.raises(ConfigError, match="is a run of generators"):
        check_job(replace(job_of(collection, make_generators(), tmp_path / "o"), model=make_generators()))
    with pytest.raises(ConfigError, match="a block of 256 px needs about"):
        check_memory(
            job_of(make_collection("d", {"img": picture((300, 300))}), make_generators(), tmp_path / "o",
                   overview_px=32), replace(QUIET, memory_gib=0.004),
        )  # fmt: skip
    for options, message in (
        ({}, "needs its training: give --generator RUN"),
        ({"generator": "g", "style": "s.tif"}, "--style s.tif has no effect"),
        ({"generator": "g", "direction": "up"}, "target-to-source or source-to-target; got 'up'"),
        ({"generator": "g", "method": "meanstd", "style": "s.tif"}, "--generator g has no effect"),
    ):
        with pytest.raises(ConfigError, match=message):
            StyleConfig(**{"method": "cyclegan"} | options)
    with pytest.raises(ConfigError, match="give None as style"):
        raydom.stylize(picture((9, 9))[0], picture((9, 9))[0], "cyclegan", generator=make_generators())
    sized = make_collection("e", {"img": picture((40, 40))}, pixel_size_um=0.5)
    check_job(job_of(sized, make_generators("sized", pixel_size_um=0.25), tmp_path / "o"))
    assert "trained at 0.25 um/px; 1 of 1 images" in caplog.text
