"""DRIT as a style method: pixels do not depend on the cut; the look is of the domain and attribute asked for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import raydom
from raydom.config import BlockConfig, DisentangledConfig, DomainSpec, GeneratorSpec, RunConfig, StyleConfig
from raydom.errors import ConfigError
from raydom.images.intensity import image_statistics
from raydom.inference.job import BlockJob, check_job, plan_job
from raydom.inference.runner import execute_serially, run_jobs
from raydom.networks.disentangled import Translator
from raydom.storage.collection import open_collection
from raydom.storage.model_run import write_model_run


def picture(shape: tuple[int, int], channels: int = 1) -> np.ndarray:
    """Coarse blobs whose contrast grows from left to right, so that tiles have unlike statistics."""
    generator = np.random.default_rng(shape)
    coarse = np.kron(generator.random((channels, -(-shape[0] // 4), -(-shape[1] // 4))), np.ones((1, 4, 4)))
    coarse = coarse[:, : shape[0], : shape[1]] + 0.2 * generator.random((channels, *shape))
    return (40 + 140 * coarse * np.linspace(0.2, 1, shape[1])).astype(np.uint8)


@pytest.fixture
def make_translator(tmp_path):
    """Writes a run of encoders and generator with random weights and strong contrast."""

    def make(name="run", names=("s", "t"), separate=False, channels=1, highs=None):
        shape = DisentangledConfig(
            in_channels=channels, num_domains=len(names), base_channels=2, attribute_size=3, separate=separate
        )
        translator = Translator(shape)
        for decoder in translator.generator.decoders.networks:
            decoder.last.weight.data *= 3
            decoder.last.bias.data *= 0
        for module in translator.attribute_encoder.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.data *= 5
        mean = torch.arange(len(names) * 3, dtype=torch.float32).reshape(-1, 3) / 9
        translator.attribute_encoder.observe(mean, torch.zeros_like(mean), torch.arange(len(names)))
        highs = highs or (1.0,) * len(names)
        spec = GeneratorSpec(
            kind="drit", generator=shape, channels=tuple(f"c{n}" for n in range(channels)),
            domains=tuple(
                DomainSpec(name=n, low=0.0, high=high, dtype="uint8", statistics=image_statistics(picture((9, 9))))
                for n, high in zip(names, highs, strict=True)
            ),
            pixel_size_um=None, total_stride=4, reach_px=translator.reach_px,
        )  # fmt: skip
        weights = {key: value.numpy() for key, value in translator.state_dict().items()}
        write_model_run(str(tmp_path / name), spec, weights, {})
        return str(tmp_path / name)

    return make


def job_of(collection, generator, out, block_size=256, **options):
    style = StyleConfig(method="drit", generator=generator, **options)
    return BlockJob(
        name="s", collection=collection.uri, out=str(out), style=style, blocks=BlockConfig(block_size=block_size)
    )


@pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])
def test_blocks_are_those_of_any_other_cut(tmp_path, make_collection, make_translator, separate):
    collection, run = make_collection("c", {"img": picture((157, 131))}), make_translator(separate=separate)
    found = {}
    for size in (32, 256):
        job = job_of(collection, run, tmp_path / f"o{size}", size, overview_px=64)
        (report,) = run_jobs([job], RunConfig(quiet=True, serial=True), execute_serially)
        assert report.ok
        found[size] = open_collection(job.out)["img"].numpy().astype(int)
    assert found[256].std() > 10
    assert np.abs(found[32] - found[256]).max() <= 1


def test_the_look_is_that_of_the_domain_and_the_attribute(make_translator):
    pixels, run = picture((40, 48))[0], make_translator(names=("a", "b", "c"))
    black, white = (np.full((50, 30), level, np.uint8) for level in (0, 255))

    def made(style=None, **options):
        return raydom.stylize(pixels, style, "drit", generator=run, **options).astype(int)

    looks = [
        made(to_domain="a"), made(to_domain="b"), made(to_domain="b", attribute="sampled"),
        made(to_domain="b", attribute="sampled", seed=1), made(black, to_domain="b", attribute="style"),
        made(white, to_domain="b", attribute="style"),
    ]  # fmt: skip
    for number, look in enumerate(looks):
        assert all((look != other).any() for other in looks[:number])
    assert np.array_equal(made(to_domain="b"), looks[1])
    assert np.array_equal(made(to_domain="b", attribute="sampled", seed=1), looks[3])
    assert np.array_equal(made(to_domain="b", from_domain="c"), looks[1])  # one network for all domains


def test_images_are_seen_and_made_in_the_ranges_of_their_domains(make_translator):
    pixels = picture((40, 48))[0] // 2
    plain, wide = make_translator("plain"), make_translator("wide", highs=(1.0, 0.5))
    to_source = raydom.stylize(pixels, None, "drit", generator=wide)
    assert np.array_equal(to_source, raydom.stylize(2 * pixels, None, "drit", generator=plain))
    options = {"direction": "source-to-target"}
    to_target = raydom.stylize(pixels, None, "drit", generator=wide, **options)
    assert np.abs(raydom.stylize(pixels, None, "drit", generator=plain, **options) / 2 - to_target).max() <= 1


def test_the_run_and_the_reference_are_told_by_their_content(tmp_path, make_collection, make_translator):
    pictures = {"img": picture((40, 40)), "other": picture((40, 41))}
    collection, run = make_collection("c", pictures), make_translator()
    uris = [str(image.uri) for image in collection]

    def settings(**options):
        return plan_job(job_of(collection, run, tmp_path / "o", **options)).settings["style"]

    mean = settings()
    assert mean["attribute"] == "mean" and mean["weights"] and "generator" not in mean
    assert settings(to_domain="t") != mean
    first, second = (settings(attribute="style", style=uri) for uri in uris)
    assert first["style"] != second["style"]


def test_what_does_not_fit_is_refused_by_name(tmp_path, make_collection, make_translator):
    collection = make_collection("c", {"img": picture((40, 40))})
    many = make_translator("many", names=("a", "b", "c"), highs=(1.0, 0.5, 1.0))
    image = str(next(iter(collection)).uri)
    refused = {
        "knows the domains a, b, c: choose one with --to-domain": {},
        "--to-domain d: .* knows the domains a, b, c": {"to_domain": "d"},
        "--from-domain d": {"to_domain": "a", "from_domain": "d"},
        "differ in their intensity range": {"to_domain": "a"},
    }
    for message, options in refused.items():
        with pytest.raises(ConfigError, match=message):
            check_job(job_of(collection, many, tmp_path / "o", **options))
    check_job(job_of(collection, many, tmp_path / "o", to_domain="a", from_domain="b", attribute="style", style=image))
    with pytest.raises(ConfigError, match="Give --attribute style with it"):
        StyleConfig(method="drit", generator=many, style=image)
    with pytest.raises(ConfigError, match="needs a style image"):
        StyleConfig(method="drit", generator=many, attribute="style")
    with pytest.raises(ConfigError, match="is a run of drit, not of cyclegan"):
        job = job_of(collection, many, tmp_path / "o")
        check_job(replace(job, style=replace(job.style, method="cyclegan")))
    with pytest.raises(ConfigError, match=r"the generator has 3 channels, the images of .* have 1"):
        check_job(job_of(collection, make_translator("rgb", channels=3), tmp_path / "o"))
