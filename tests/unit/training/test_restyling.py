"""Training crops in another look: from a generator, and from collections stylised beforehand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raydom.commands import SupervisedConfig
from raydom.config import DisentangledConfig, DomainSpec, GeneratorConfig, GeneratorSpec, RunConfig, TrainConfig
from raydom.errors import ConfigError, DataError
from raydom.networks.disentangled import Translator
from raydom.networks.generators import Generator
from raydom.storage.collection import write_manifest
from raydom.storage.model_run import write_model_run
from raydom.training import distributed
from raydom.training.runner import complete, train_here
from raydom.training.supervised import plan_supervised
from raydom.types import ImageStatistics

STATISTICS = ImageStatistics((0.0,), (255.0,), (4.5,), (2.0,), ((0.0, 4.0, 9.0),))
RANGES = (0.0, 1.0), (0.2, 0.6), (0.0, 0.1)
TRAIN = TrainConfig(steps=2, batch_size=2, crop_px=32, validate_every=1, augment=())


def write_generator(uri, kind: str = "drit", names=("source", "target", "third"), grey: float | None = 0.5) -> str:
    """A run of fresh networks; ``grey``: all that they make, between 0 and 1."""
    if kind == "drit":
        shape = DisentangledConfig(num_domains=len(names), base_channels=2, attribute_size=3)
        network = Translator(shape)
        last = [decoder.last for decoder in network.generator.decoders.networks]
    else:
        names, shape = names[:2], GeneratorConfig(channels=1, base_channels=2, blocks=1)
        network = torch.nn.ModuleDict({name: Generator(shape) for name in ("source_to_target", "target_to_source")})
        last = [generator.decoder[-2] for generator in network.values()]
    for layer in last if grey is not None else ():
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, np.arctanh(2 * grey - 1))
    spec = GeneratorSpec(
        kind=kind, generator=shape, channels=("c0",), pixel_size_um=None, total_stride=4, reach_px=80,
        domains=tuple(
            DomainSpec(name=name, low=low, high=high, dtype="uint8", statistics=STATISTICS)
            for name, (low, high) in zip(names, RANGES, strict=False)
        ),
    )  # fmt: skip
    write_model_run(str(uri), spec, {name: value.numpy() for name, value in network.state_dict().items()}, {})
    return str(uri)


def pixels(offset: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {f"i{n}": (generator.integers(0, 100, (1, 40, 30 + n)) + offset).astype(np.uint8) for n in range(4)}


@pytest.fixture
def source(make_collection):
    images = pixels()
    return make_collection("source", images, {name: (image[0] > 50).astype(np.uint8) for name, image in images.items()})


def config(source, out, augment=(), **fields) -> SupervisedConfig:
    train = replace(TRAIN, augment=augment)
    values = {"base_channels": 4, "depth": 2, "train": train, "run": RunConfig(serial=True, quiet=True)}
    return SupervisedConfig(collection=source.uri, out=str(out), **(values | fields))


def batches(configuration, count=20):
    training = plan_supervised(configuration).assemble(torch.device("cpu"))
    return [training.batch_at(step) for step in range(count)]


def test_half_of_the_crops_are_made_in_a_random_domain_and_keep_their_labels(source, tmp_path):
    generator = write_generator(tmp_path / "generator")
    plain = batches(config(source, tmp_path / "a"))
    made = batches(config(source, tmp_path / "b", augment=("drit",), generator=generator))
    levels = {0.5: 0, 0.4: 0, 0.05: 0}
    for before, after in zip(plain, made, strict=True):
        assert torch.equal(before.labels, after.labels) and torch.equal(before.valid, after.valid)
        for image, restyled in zip(before.images, after.images, strict=True):
            if not torch.equal(image, restyled):
                level = round(float(restyled.mean()), 3)  # grey, in the range of a domain
                torch.testing.assert_close(restyled, torch.full_like(restyled, level), atol=1e-5, rtol=0)
                levels[level] += 1
    assert 12 <= sum(levels.values()) <= 28 and min(levels.values()) >= 2


def test_cyclegan_makes_the_other_domain_than_the_image_is_of(source, tmp_path):
    write_manifest(source.uri, [replace(record, domain="target") for record in source.records])
    for names, level in ((("source", "target"), 0.5), (("red", "blue"), 0.4)):
        generator = write_generator(tmp_path / names[0], "cyclegan", names)
        options = {"augment": ("cyclegan",), "generator": generator, "augment_share": 1.0}
        batch = batches(config(source, tmp_path / "a", **options), 1)[0]
        torch.testing.assert_close(batch.images, torch.full_like(batch.images, level), atol=1e-5, rtol=0)


def test_crops_are_those_of_collections_stylised_beforehand(source, make_collection, tmp_path):
    brighter = [make_collection(f"d{offset}", pixels(offset)).uri for offset in (51, 102)]
    plain = batches(config(source, tmp_path / "a"))
    taken = batches(config(source, tmp_path / "b", augment_collection=tuple(brighter), augment_share=0.75))
    offsets = torch.cat([(b.images - a.images).mean(dim=(1, 2, 3)) for a, b in zip(plain, taken, strict=True)])
    assert {round(offset, 3) for offset in offsets.tolist()} == {0.0, 0.2, 0.4}
    assert 3 <= int((offsets < 0.1).sum()) <= 20
    assert all(torch.equal(a.labels, b.labels) for a, b in zip(plain, taken, strict=True))


def test_a_batch_does_not_depend_on_the_workers(source, tmp_path, monkeypatch):
    asked = config(source, tmp_path / "a", ("drit", "flip"), generator=write_generator(tmp_path / "g", grey=None))
    alone = batches(replace(asked, train=replace(asked.train, batch_size=4)), 3)
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    assert all(torch.equal(a.images[2:], b.images) for a, b in zip(alone, batches(asked, 3), strict=True))


def test_the_run_knows_the_generator_by_its_content(source, tmp_path):
    first = write_generator(tmp_path / "first")
    asked = config(source, tmp_path / "run", ("drit",), generator=first, augment_share=1.0)
    done = complete(plan_supervised(asked), train_here)
    again = complete(plan_supervised(replace(asked, out=str(tmp_path / "again"))), train_here)
    assert done.content_hash == again.content_hash
    (tmp_path / "first").rename(tmp_path / "moved")
    moved = replace(asked, generator=str(tmp_path / "moved"))
    assert complete(plan_supervised(moved), train_here).content_hash == done.content_hash
    other = replace(asked, generator=write_generator(tmp_path / "other", grey=0.25))
    with pytest.raises(ConfigError, match=r"differs in: restyling\.generator"):
        complete(plan_supervised(other), train_here)


def test_what_does_not_fit_is_refused(source, make_collection, tmp_path):
    generator = write_generator(tmp_path / "generator")
    refused = {
        "needs --generator RUN": {"augment": ("drit",)},
        "has no effect: name its algorithm": {"generator": generator},
        "--augment-share 0.5 has no effect": {"augment_share": 0.5},
        "augment_share must be above 0": {"augment_share": 0.0},
    }
    for message, options in refused.items():
        with pytest.raises(ConfigError, match=message):
            config(source, tmp_path / "x", **options)
    with pytest.raises(ConfigError, match="is a run of drit; give --augment with drit instead of cyclegan"):
        plan_supervised(config(source, tmp_path / "x", ("cyclegan",), generator=generator))
    rgb = make_collection("rgb", {"i0": np.zeros((3, 40, 40), np.uint8)}, {"i0": np.eye(40, dtype=np.uint8)})
    with pytest.raises(ConfigError, match=r"takes images of 1 channels \(c0\); the training images have 3"):
        plan_supervised(config(rgb, tmp_path / "x", ("drit",), generator=generator))
    some = make_collection("some", {name: image for name, image in pixels().items() if name > "i0"})
    with pytest.raises(DataError, match=r"lacks 1 of \d training images, such as i0"):
        plan_supervised(config(source, tmp_path / "x", augment_collection=(some.uri,)))
    large = make_collection("large", {name: np.zeros((1, 50, 50), np.uint8) for name in pixels()})
    with pytest.raises(DataError, match=r"has shape \(1, 50, 50\)"):
        plan_supervised(config(source, tmp_path / "x", augment_collection=(large.uri,)))
