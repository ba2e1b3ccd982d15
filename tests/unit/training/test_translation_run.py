"""The whole of a training of generators without Ray: plan, loop, run folder, resume, refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import raydom
from raydom.algorithms.trained import load_generators, load_trained, load_translator
from raydom.cli import main
from raydom.commands import CycleGanConfig, DritConfig, TargetFilter
from raydom.config import (
    DomainSpec,
    DritLossConfig,
    GeneratorConfig,
    GeneratorSpec,
    ModelSpec,
    NetworkConfig,
    RunConfig,
    TrainConfig,
)
from raydom.errors import ConfigError, DataError
from raydom.images.intensity import image_statistics
from raydom.storage.collection import open_collection, write_manifest
from raydom.storage.model_run import open_generator_run
from raydom.training import runner
from raydom.training.runner import complete, train_here
from raydom.training.translated import SeenAsSource, certainty_as_source
from raydom.training.translation import domain_reader, plan_translation

TRAIN = TrainConfig(steps=6, crop_px=64, batch_size=1, validate_every=3, augment=("flip",), clip_norm=0.0)


def images(level: int, count: int = 3, dtype: str = "uint8", channels: int = 1) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(level)
    return {f"i{n}": generator.integers(level, 2 * level, (channels, 70, 66 + n)).astype(dtype) for n in range(count)}


def config(out, /, **fields) -> DritConfig:
    values = {"out": str(out), "base_channels": 2, "train": TRAIN, "run": RunConfig(serial=True, quiet=True)}
    return DritConfig(**(values | fields))


def cyclegan(out, /, **fields) -> CycleGanConfig:
    small = {"base_channels": 2, "blocks": 1, "critic_layers": 1, "pool_size": 2}
    train = replace(TRAIN, crop_px=32, weight_decay=0.0)
    values = {"out": str(out), "train": train, "run": RunConfig(serial=True, quiet=True)} | small
    return CycleGanConfig(**(values | fields))


def run(configuration):
    return complete(plan_translation(configuration), train_here)


@pytest.fixture
def pair(make_collection):
    dark = make_collection("dark", images(400, dtype="uint16"), pixel_size_um=0.5)
    return {"source": dark.uri, "target": make_collection("bright", images(100)).uri}


@pytest.mark.parametrize("separate", [False, True], ids=["shared", "separate"])
def test_a_run_tells_its_domains_and_can_be_used(pair, tmp_path, separate):
    done = run(config(tmp_path / "run", separate=separate, **pair))
    source, target = done.spec.domains
    assert (source.name, source.dtype, target.name, target.dtype) == ("source", "uint16", "target", "uint8")
    assert source.high == pytest.approx(800 / 65535, rel=0.01) and (target.low, target.high) == (0.0, 1.0)
    assert source.statistics.mean[0] == pytest.approx(600, rel=0.01)
    assert (done.spec.kind, done.spec.pixel_size_um, done.spec.total_stride) == ("drit", 0.5, 4)
    translator, spec = load_translator(str(tmp_path / "run"))
    assert spec == open_generator_run(str(tmp_path / "run")).spec
    domains = torch.tensor([1])
    attributes = translator.sample(torch.zeros(1, 8), domains)
    assert attributes.any()  # the moments of the training images are in the run
    assert translator(torch.zeros(1, 1, 30, 41), 1 - domains, domains, attributes).shape == (1, 1, 30, 41)
    with pytest.raises(ConfigError, match="is a run of drit, not of cyclegan"):
        load_generators(str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"is a run of generators \(drit\)"):
        load_trained(str(tmp_path / "run"))


@pytest.mark.parametrize("network", ["resnet", "pixel-shuffle"])
def test_a_run_of_cyclegan_can_be_used_and_shows_what_it_makes(pair, tmp_path, network):
    done = run(cyclegan(tmp_path / "run", generator_network=network, sample_every=6, **pair))
    assert (done.spec.kind, done.spec.generator.name, [domain.dtype for domain in done.spec.domains]) == (
        "cyclegan", network, ["uint16", "uint8"],
    )  # fmt: skip
    generators, _ = load_generators(str(tmp_path / "run"))
    assert done.spec.reach_px == generators["source_to_target"].reach_px
    with Image.open(tmp_path / "run" / "samples" / "step-00000006.png") as picture:
        assert picture.size == (32, 6 * 34 - 2)  # of each domain an image, its translation and the way back
    dark = open_collection(pair["source"])["i0"].numpy()
    # Of the style's scale: fractions of 8 bits; the source's fill no more than a percent of 16 bits.
    made = raydom.stylize(dark[0], None, "cyclegan", generator=str(tmp_path / "run"), direction="source-to-target")
    assert made.dtype == np.uint16 and made.mean() > 5000 > dark.mean()
    with pytest.raises(ConfigError, match="is a run of cyclegan, not of drit"):
        load_translator(str(tmp_path / "run"))


@pytest.mark.parametrize("config", [config, cyclegan])
def test_the_generators_are_those_a_source_model_is_most_certain_of(pair, make_model, tmp_path, config):
    model = make_model(low=400 / 65535, high=800 / 65535)
    train = replace(config(tmp_path, **pair).train, validate_every=2, learning_rate=0.01)
    done = run(config(tmp_path / "run", model=model, train=train, **pair))
    scores = done.metrics.filter(done.metrics["score"].is_valid()).select(["step", "score"]).to_pylist()
    assert [row["step"] for row in scores] == [2, 4, 6] and len({row["score"] for row in scores}) == 3
    best = max(scores, key=lambda row: row["score"])
    assert (done.training["best_step"], done.training["best_score"]) == (best["step"], best["score"])
    bright = plan_translation(config(tmp_path / "run", model=model, train=train, **pair)).domains[1]
    load = load_generators if done.spec.kind == "cyclegan" else load_translator
    again = certainty_as_source(model, load(done.uri)[0], done.spec, bright, torch.device("cpu"))()
    assert again == pytest.approx(best["score"], abs=1e-6)  # the run holds those weights
    ends_early = replace(train, steps=60, patience=1)
    assert run(config(tmp_path / "early", model=model, train=ends_early, **pair)).metrics["step"].to_pylist()[-1] < 60
    with pytest.raises(ConfigError, match="cannot score these generators: it takes 2 channels"):
        plan_translation(config(tmp_path / "x", model=make_model("two", in_channels=2), **pair))
    with pytest.raises(ConfigError, match="is a run of generators"):
        plan_translation(config(tmp_path / "x", model=done.uri, **pair))


def test_a_source_model_sees_what_is_made_in_the_intensities_of_the_source():
    statistics = image_statistics(np.zeros((1, 2, 2), np.uint8))
    domains = tuple(
        DomainSpec(name=name, low=low, high=high, dtype="uint8", statistics=statistics)
        for name, low, high in (("source", 0.1, 0.3), ("target", 0.0, 0.8))
    )
    model = ModelSpec(
        network=NetworkConfig(), channels=("c",), low=0.2, high=0.6, pixel_size_um=None, total_stride=1,
        receptive_field_px=1,
    )  # fmt: skip
    spec = GeneratorSpec(
        kind="cyclegan", generator=GeneratorConfig(), channels=("c",), domains=domains, pixel_size_um=None,
        total_stride=4, reach_px=0,
    )  # fmt: skip
    identity = torch.nn.ModuleDict({"target_to_source": torch.nn.Identity()})
    seen = SeenAsSource(lambda images: images, model, identity, spec)(torch.tensor([[[[0.0, 0.5, 1.0]]]]))
    # Fractions 0.2, 0.4 and 0.6 are a quarter, a half and three quarters of the target's range, and of the source's
    # 0.15, 0.2 and 0.25.
    torch.testing.assert_close(seen, torch.tensor([[[[-0.125, 0.0, 0.125]]]]))


@pytest.mark.parametrize("config", [config, cyclegan])
def test_images_are_seen_at_the_pixel_size_that_is_asked_for(pair, make_collection, tmp_path, config):
    fine = make_collection("fine", images(50), pixel_size_um=0.25).uri
    plan = plan_translation(config(tmp_path / "x", source=pair["source"], target=fine, pixel_size_um=1.0))
    assert plan.spec.pixel_size_um == plan.settings()["pixel_size_um"] == 1.0
    reader = domain_reader(plan.spec, plan.domains[1], 1)
    assert reader.shape("i0") == (18, 16)  # of 70 x 66 px
    with pytest.raises(ConfigError, match="3 of 6 images do not state their pixel size"):
        plan_translation(config(tmp_path / "x", pixel_size_um=1.0, **pair))
    with pytest.raises(ConfigError, match="pixel_size_um must be > 0"):
        config(tmp_path / "x", pixel_size_um=0.0, **pair)


def test_cyclegan_refuses_what_cannot_work(pair, make_collection, tmp_path, capsys):
    rgb = make_collection("rgb", images(100, channels=3)).uri
    with pytest.raises(DataError, match="source have 1 channels"):
        plan_translation(cyclegan(tmp_path / "x", source=pair["source"], target=rgb))
    with pytest.raises(ConfigError, match=r"crop_px 32 is smaller than the discriminator's field of 70 px"):
        plan_translation(cyclegan(tmp_path / "x", critic_layers=3, **pair))
    with pytest.raises(ConfigError, match="give --source-domain and --target-domain"):
        plan_translation(cyclegan(tmp_path / "x", collection=rgb))
    test = make_collection("test", images(100), split="test").uri
    with pytest.raises(DataError, match="of the domain target can be trained on: all are of split test"):
        plan_translation(cyclegan(tmp_path / "x", source=pair["source"], target=test))
    options = ["--source", pair["source"], "--target", rgb, "--out", str(tmp_path / "x"), "--generator-network", "unet"]
    assert main(["train", "cyclegan", *options]) == 2
    assert "resnet or pixel-shuffle; got 'unet'" in capsys.readouterr().err


@pytest.mark.parametrize("config", [config, cyclegan])
def test_an_interrupted_training_ends_with_the_same_weights(pair, tmp_path, monkeypatch, config):
    whole = run(config(tmp_path / "whole", **pair))
    saved = runner.save_checkpoint

    def interrupt(folder, step, state):
        saved(folder, step, state)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(runner, "save_checkpoint", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(config(tmp_path / "broken", **pair))
    resumed = run(config(tmp_path / "broken", **pair))
    assert resumed.content_hash == whole.content_hash
    other = replace(config(tmp_path / "broken", **pair), base_channels=3)
    with pytest.raises(ConfigError, match=r"another training\. It differs in: base_channels: 2 -> 3"):
        run(other)


def test_a_run_from_before_there_were_options_is_opened_by_the_same_command(pair, tmp_path):
    done = run(config(tmp_path / "run", **pair))
    path = tmp_path / "run" / "plan.json"
    plan = json.loads(path.read_text())
    del plan["attribute_size"], plan["model"], plan["losses"]["mode_seeking"], plan["train"]["phase_rates"]
    path.write_text(json.dumps(plan))
    assert run(config(tmp_path / "run", **pair)).content_hash == done.content_hash
    with pytest.raises(ConfigError, match=r"differs in: losses\.mode_seeking: null -> 0\.5"):
        run(config(tmp_path / "run", losses=DritLossConfig(mode_seeking=0.5), **pair))


def test_all_domains_of_a_collection_are_learnt(make_collection, tmp_path, caplog):
    collection = make_collection("many", images(50, 5))
    names = ["red", "blue", "red", "green", None]
    told = [replace(record, domain=name) for record, name in zip(collection.records, names, strict=True)]
    write_manifest(collection.uri, told)
    done = run(config(tmp_path / "run", collection=collection.uri))
    assert [domain.name for domain in done.spec.domains] == ["blue", "green", "red"]
    assert "1 of 5 images are of no domain" in caplog.text
    chosen = config(tmp_path / "two", collection=collection.uri, source_domain="red", target_domain="blue")
    assert [domain.name for domain in plan_translation(chosen).domains] == ["red", "blue"]
    with pytest.raises(ConfigError, match="separate networks are for two domains; got 3"):
        plan_translation(config(tmp_path / "x", collection=collection.uri, separate=True))
    with pytest.raises(ConfigError, match="--target-images has no effect"):
        target_images = TargetFilter(split="train")
        plan_translation(config(tmp_path / "x", collection=collection.uri, target_images=target_images))
    with pytest.raises(ConfigError, match="no image has domain pink"):
        plan_translation(replace(chosen, target_domain="pink"))


def test_what_cannot_work_is_refused(pair, make_collection, tmp_path, capsys, caplog):
    rgb = make_collection("rgb", images(100, channels=3)).uri
    with pytest.raises(DataError, match="source have 1 channels"):
        plan_translation(config(tmp_path / "x", source=pair["source"], target=rgb))
    with pytest.raises(ConfigError, match="crop_px must be a multiple of 4 and >= 64"):
        plan_translation(config(tmp_path / "x", train=replace(TRAIN, crop_px=48), **pair))
    plan_translation(config(tmp_path / "x", separate=True, **pair))
    assert "crops of 64 px are smaller than the field of 187 px" in caplog.text and "--crop-px 188" in caplog.text
    for command in (config, cyclegan):
        with pytest.raises(ConfigError, match="--augment drit is for segmentation models"):
            command(tmp_path / "x", train=replace(TRAIN, augment=("drit",)), **pair)
    with pytest.raises(ConfigError, match="4 workers cannot share"):
        plan_translation(config(tmp_path / "x", run=RunConfig(workers=4), **pair))
    with pytest.raises(DataError, match="two domains or more are needed, but its column domain has none"):
        plan_translation(config(tmp_path / "x", collection=rgb))
    assert main(["train", "drit", "--collection", rgb, "--out", str(tmp_path / "x")]) == 2
    assert "raydom domains" in capsys.readouterr().err


@pytest.mark.parametrize("config", [config, cyclegan])
def test_settings_of_segmentation_models_are_refused(tmp_path, config):
    for fields, told in (
        ({"augment": ("flip", "drit")}, "--augment drit is for segmentation"),
        ({"augment": ("empty",)}, "--augment empty is for segmentation"),
        ({"patience": 3}, "patience has no effect on generators, which have no score but that of a --model RUN"),
        ({"validation_fraction": 0.5}, "validation_fraction has no effect on generators"),
    ):
        with pytest.raises(ConfigError, match=told):
            config(tmp_path, source="a", target="b", train=replace(TRAIN, **fields))


def test_weights_of_losses_that_there_are_not_are_refused(tmp_path):
    for fields, told in (
        (
            {"separate": True, "losses": DritLossConfig(classification=2)},
            "--losses.classification 2 .* with --separate",
        ),
        ({"losses": DritLossConfig(content_adversarial=0, content_steps=2)}, "--losses.content-steps 2 has no effect"),
    ):
        with pytest.raises(ConfigError, match=told):
            config(tmp_path, source="a", target="b", **fields)


def test_all_images_train_whatever_their_group(make_collection, tmp_path, caplog):
    stack = make_collection("stack", images(50, 6), group="one").uri
    large = replace(TRAIN, crop_px=128)
    plan = plan_translation(config(tmp_path / "x", source=stack, target=stack, train=large))
    assert [len(domain.training_ids) for domain in plan.domains] == [6, 6]
    assert not caplog.text
