from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from raydom.algorithms.trained import load_trained
from raydom.cluster.commands import train_adaptation
from raydom.commands import (
    DannConfig,
    DiscrepancyConfig,
    EntropyConfig,
    MeanTeacherConfig,
    OutputAdversaryConfig,
)
from raydom.config import ImageFilter, NetworkConfig, RunConfig, TrainConfig
from raydom.errors import ConfigError, DataError
from raydom.storage.collection import open_collection, write_manifest
from raydom.storage.model_run import open_model_run
from raydom.training.adaptation import plan_adaptation
from raydom.training.board import Board
from raydom.training.crops import CropReader, CropView
from raydom.training.domains import shares_by_likeness
from raydom.training.unlabelled import certainty
from raydom.types import Region

TRAIN = TrainConfig(steps=4, batch_size=2, crop_px=32, validate_every=2)
SMALL = {"base_channels": 4, "depth": 2, "train": TRAIN, "run": RunConfig(serial=True, quiet=True)}


@pytest.fixture
def domains(make_collection):
    """Bright discs on dark, and the same inverted, twice as fine, without labels but for one image."""
    generator = np.random.default_rng(0)

    def image(size):
        y, x = np.mgrid[:size, :size] - size * 0.5
        disc = np.hypot(y, x) < size / 4
        return (60 + 120 * disc[None] + generator.integers(0, 40, (1, size, size))).astype(np.uint8), disc

    sources = {f"s{n}": image(48) for n in range(4)}
    targets = {f"t{n}": image(96) for n in range(4)}
    source = make_collection(
        "source",
        {name: pixels for name, (pixels, _) in sources.items()},
        {name: disc.astype(np.uint8) for name, (_, disc) in sources.items()},
        pixel_size_um=1.0,
    )
    target = make_collection(
        "target",
        {name: 255 - pixels for name, (pixels, _) in targets.items()},
        {"t1": targets["t1"][1].astype(np.uint8)},
        pixel_size_um=0.5,
    )
    return source.uri, target.uri


@pytest.mark.parametrize(
    ("make", "fields"),
    [
        (DannConfig, {"levels": ("bottleneck", "decoder1"), "select": "source", "reweight": True}),
        (OutputAdversaryConfig, {"critic_channels": 4, "pretrain_steps": 1, "select": "combined", "select_crops": 2}),
        (EntropyConfig, {"mode": "adversarial", "select": "entropy"}),
        (DiscrepancyConfig, {"trunk_updates": 1}),
        (MeanTeacherConfig, {"labelled_target": 1, "confidence": 0.5, "train": replace(TRAIN, seed=1)}),
    ],
)
def test_a_run_is_a_model_that_segments_and_the_same_command_opens_it(domains, tmp_path, make, fields):
    source, target = domains
    config = make(source=source, target=target, out=str(tmp_path / "run"), **(SMALL | fields))
    if config.labelled_target:  # whichever images the split takes for training
        config = replace(config, train=replace(config.train, seed=next(s for s in range(9) if _trains(config, s))))
    assert train_adaptation(config) == 0
    run = open_model_run(config.out)
    assert run.spec.pixel_size_um == 1.0
    assert run.training["algorithm"] == plan_adaptation(config).algorithm
    assert run.training["best_step"] == 4 or config.select != "last"
    assert all(np.isfinite(value).all() for value in run.weights().values())
    first = run.content_hash
    assert train_adaptation(config) == 0
    assert open_model_run(config.out).content_hash == first
    with pytest.raises(ConfigError, match="another training"):
        train_adaptation(replace(config, weight=0.123))


def _trains(config, seed):
    try:
        return plan_adaptation(replace(config, train=replace(config.train, seed=seed)))
    except ConfigError:
        return None


def test_training_can_begin_with_a_model_run(domains, tmp_path):
    source, target = domains
    first = EntropyConfig(source=source, target=target, out=str(tmp_path / "first"), **SMALL)
    train_adaptation(first)
    assert not (tmp_path / "first" / "samples").exists()
    frozen = replace(TRAIN, learning_rate=1e-12, weight_decay=0.0, steps=1)
    second = EntropyConfig(
        source=source, target=target, out=str(tmp_path / "second"), initial=first.out, **(SMALL | {"train": frozen})
    )
    train_adaptation(second)
    before, after = open_model_run(first.out).weights(), open_model_run(second.out).weights()
    np.testing.assert_allclose(after["head.weight"], before["head.weight"], atol=1e-6)
    with pytest.raises(ConfigError, match="--num-classes"):
        plan_adaptation(replace(second, num_classes=3))


def test_one_collection_of_both_domains(domains, make_collection, tmp_path):
    images = {f"a{n}": np.full((1, 40, 40), 50 * n + 20, np.uint8) for n in range(4)}
    labels = {name: np.eye(40, dtype=np.uint8) for name in images}
    both = make_collection("both", images, labels, domain={"a0": "old", "a1": "old", "a2": "new", "a3": "new"})
    config = DannConfig(
        collection=both.uri, source_domain="old", target_domain="new", out=str(tmp_path / "run"), **SMALL
    )
    plan = plan_adaptation(config)
    assert {*plan.source.training_ids, *plan.source.validation_ids} == {"a0", "a1"}
    assert {*plan.target.training_ids, *plan.target.validation_ids} == {"a2", "a3"}
    with pytest.raises(ConfigError, match="--source-domain"):
        plan_adaptation(replace(config, source_domain=None))
    with pytest.raises(ConfigError, match="no image has domain older"):
        plan_adaptation(replace(config, source_domain="older"))


def test_what_cannot_be_adapted_is_refused_before_the_first_step(domains, make_collection, tmp_path):
    source, target = domains
    config = DannConfig(source=source, target=target, out=str(tmp_path / "run"), **SMALL)
    colour = make_collection("colour", {"x": np.zeros((3, 40, 40), np.uint8), "y": np.zeros((3, 40, 40), np.uint8)})
    with pytest.raises(DataError, match=r"source have 1 channels.*target have 3"):
        plan_adaptation(replace(config, target=colour.uri))
    with pytest.raises(ConfigError, match=r"encoder7.*a unet of depth 2 has encoder0"):
        plan_adaptation(replace(config, levels=("encoder7",)))
    with pytest.raises(ConfigError, match="--labelled-target 3"):
        plan_adaptation(replace(config, labelled_target=3))
    with pytest.raises(DataError, match="labels 'nuclei'"):
        plan_adaptation(replace(config, label="nuclei"))
    with pytest.raises(ConfigError, match="9 workers cannot share"):
        plan_adaptation(replace(config, run=RunConfig(workers=9)))
    with pytest.raises(DataError, match="no image chosen of the domain target"):
        plan_adaptation(replace(config, target_images=replace(config.target_images, keep=("height>=9999",))))
    with pytest.raises(ConfigError, match="leaves none"):
        plan_adaptation(replace(config, pretrain_steps=4))
    with pytest.raises(ConfigError, match="which domains"):
        DannConfig(source=source, out="x")
    with pytest.raises(ConfigError, match="--select combined"):
        DannConfig(source=source, target=target, out="x", train=TrainConfig(patience=2))


@pytest.mark.parametrize(("crop_px", "strides"), [(4, 1), (12, 2), (16, 3), (32, 4), (100, 4)])
def test_the_critic_of_label_maps_fits_any_crop_of_4_px_or_more(domains, tmp_path, crop_px, strides):
    source, target = domains
    small = {**SMALL, "source": source, "target": target, "out": str(tmp_path / "run")}
    plan = plan_adaptation(OutputAdversaryConfig(**small | {"train": replace(TRAIN, crop_px=crop_px)}))
    critic = plan.assemble(torch.device("cpu")).algorithm.modules["critic"]
    assert len([one for one in critic.layers if isinstance(one, torch.nn.Conv2d)]) == strides + 1
    assert min(critic(torch.zeros(1, 2, crop_px, crop_px)).shape) >= 1
    with pytest.raises(ConfigError, match=r"critic of label maps needs crops of at least 4 px.*got --crop-px 2"):
        plan_adaptation(OutputAdversaryConfig(**small | {"depth": 1, "train": replace(TRAIN, crop_px=2)}))


def test_source_images_like_the_target_are_drawn_more_often(make_collection):
    levels = (20, 60, 180, 200)
    source = make_collection("s", {f"i{n}": np.full((1, 8, 8), level, np.uint8) for n, level in enumerate(levels)})
    target = make_collection("t", {f"j{n}": np.full((1, 8, 8), 190 + n, np.uint8) for n in range(3)})
    shares = shares_by_likeness(source.records, target.records)
    assert sum(shares) == pytest.approx(1.0)
    assert list(np.argsort(shares)) == [0, 1, 2, 3]


def test_filters_of_two_collections_are_apart(domains, tmp_path):
    source, target = domains
    config = DannConfig(
        source=source, target=target, out=str(tmp_path / "run"), images=ImageFilter(keep=("height<50",)), **SMALL
    )
    assert len(plan_adaptation(config).target.training_ids) == 3


def test_a_run_shows_itself_and_pictures_change_nothing(domains, tmp_path):
    source, target = domains
    config = EntropyConfig(source=source, target=target, out=str(tmp_path / "plain"), **SMALL)
    train_adaptation(config)
    train_adaptation(replace(config, out=str(tmp_path / "shown"), sample_every=2))
    for step in (2, 4):
        with Image.open(tmp_path / "shown" / "samples" / f"step-{step:08d}.png") as picture:
            assert picture.size == (2 * 32 + 2, 4 * 32 + 6)  # two crops of two domains, and what is made of them
            assert picture.convert("L").getextrema()[0] < 200
    plain, shown = (open_model_run(str(tmp_path / name)).weights() for name in ("plain", "shown"))
    assert all(np.array_equal(plain[name], shown[name]) for name in plain)
    (events,) = (tmp_path / "shown" / "tensorboard").iterdir()
    written = events.read_bytes()
    assert b"adapt/entropy" in written and b"score" in written


def test_the_network_of_a_run_goes_on_learning_its_statistics_after_a_validation(domains, make_model, tmp_path):
    source, target = domains
    found = []
    for steps in (2, 3):  # nothing else moves
        train = replace(TRAIN, learning_rate=1e-12, weight_decay=0.0, validate_every=1, steps=steps)
        config = DiscrepancyConfig(
            source=source, target=target, out=str(tmp_path / f"{steps}"), initial=make_model(), trunk_updates=1,
            **(SMALL | {"train": train}),
        )  # fmt: skip
        train_adaptation(config)
        found.append(open_model_run(config.out).weights()["encoder.0.1.running_mean"])
    assert not np.allclose(*found)


def test_a_run_to_begin_with_has_what_is_asked_for(domains, make_model, tmp_path):
    source, target = domains
    config = EntropyConfig(source=source, target=target, out=str(tmp_path / "run"), initial=make_model(), **SMALL)
    assert plan_adaptation(replace(config, depth=4)).spec.network.depth == 2  # the default is no wish
    with pytest.raises(ConfigError, match=r"--depth 3 has no effect with --initial .* has 2"):
        plan_adaptation(replace(config, depth=3))
    with pytest.raises(ConfigError, match="--network u2net has no effect"):
        plan_adaptation(replace(config, network="u2net"))
    with pytest.raises(ConfigError, match="--weights imagenet has no effect"):
        replace(config, weights="imagenet")
    borders = make_model("borders", network=NetworkConfig(base_channels=4, depth=2, output="boundary"))
    with pytest.raises(ConfigError, match=r"tells boundary of 'label'; asked for are classes"):
        plan_adaptation(replace(config, initial=borders))
    with pytest.raises(ConfigError, match="needs a unet"):
        u2net = make_model("u2net", network=NetworkConfig(name="u2netp"))
        plan_adaptation(DiscrepancyConfig(source=source, target=target, out="x", initial=u2net, train=TRAIN))


def test_masks_and_shapes_are_looked_at_before_the_first_step(domains, make_collection, tmp_path, caplog):
    source, target = domains
    config = DannConfig(source=source, target=target, out=str(tmp_path / "run"), mask="fov", **SMALL)
    with_fov = [replace(one, labels=("label", "fov")) for one in open_collection(source).records]
    validating = plan_adaptation(replace(config, mask=None)).source.validation_ids[0]
    write_manifest(source, [one if one.image_id != validating else replace(one, labels=("label",)) for one in with_fov])
    with pytest.raises(DataError, match=f"image {validating} has no mask 'fov'"):
        plan_adaptation(config)
    write_manifest(source, with_fov)
    labelled = replace(config, labelled_target=1)
    labelled = replace(
        labelled, train=replace(TRAIN, seed=next(s for s in range(9) if _trains(replace(labelled, mask=None), s)))
    )
    with pytest.raises(DataError, match="image t1 has no mask 'fov'"):
        plan_adaptation(labelled)
    assert "do not state" not in caplog.text
    assert plan_adaptation(config).target_mask is None
    assert "4 images of the target have no mask 'fov', such as t0: all pixels of the target count" in caplog.text
    assert plan_adaptation(replace(config, target=source)).target_mask == "fov"
    plan_adaptation(replace(config, target=make_collection("unstated", {"x": np.zeros((1, 40, 40), np.uint8)}).uri))
    assert "1 images of the target do not state their pixel size" in caplog.text
    images = {"x": np.zeros((1, 40, 40), np.uint8), "y": np.zeros((2, 40, 40), np.uint8)}
    mixed = make_collection("mixed", images, split={"x": "train", "y": "val"})
    with pytest.raises(DataError, match="image x has 1 channels but y has 2"):
        plan_adaptation(replace(config, target=mixed.uri))


@pytest.mark.parametrize(
    ("make", "fields", "told"),
    [
        (DannConfig, {"output": "boundary", "select": "entropy"}, "entropy of the target is that of classes"),
        (DannConfig, {"reversal": "constant", "gamma": 5.0}, "--gamma 5.0 has no effect"),
        (OutputAdversaryConfig, {"updates": "alternating", "reversal": "constant"}, "constant has no effect"),
        (DannConfig, {"network": "maskrcnn", "select": "combined"}, "output objects is a list: give --select source"),
        (DannConfig, {"select": "entropy", "select_crops": 8}, "--select-crops 8 has no effect on --select entropy"),
        (DannConfig, {"select": "best"}, "select is last, source, entropy or combined; got 'best'"),
        (EntropyConfig, {"source": None, "target": None, "collection": "c", "images": ImageFilter(domain="a")},
         "--domain .* no effect with --collection"),
    ],
)  # fmt: skip
def test_options_without_effect_are_refused(make, fields, told):
    with pytest.raises(ConfigError, match=told):
        make(**({"source": "a", "target": "b", "out": "x"} | fields))


def test_the_best_by_what_is_told_of_the_target_is_kept_and_found_again_after_an_interruption(
    domains, tmp_path, monkeypatch
):
    source, target = domains
    train = replace(TRAIN, steps=6, validate_every=1, patience=2, learning_rate=0.03, schedule="constant")
    config = MeanTeacherConfig(
        source=source, target=target, out=str(tmp_path / "whole"), select="combined", select_crops=3,
        **(SMALL | {"train": train}),
    )  # fmt: skip
    train_adaptation(config)
    whole = open_model_run(config.out)
    scores = whole.metrics.column("score").to_pylist()
    best = int(np.argmax(scores))
    assert whole.training["best_step"] == best + 1 and whole.training["best_score"] == scores[best]
    assert len(set(scores)) > 1 and len(scores) == min(6, best + 3)

    def interrupt(board, report):
        if report.step == 2:
            raise KeyboardInterrupt

    again = replace(config, out=str(tmp_path / "again"))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Board, "update", interrupt)
        train_adaptation(again)
    train_adaptation(again)
    assert open_model_run(again.out).content_hash == whole.content_hash
    assert open_model_run(again.out).metrics.column("score").to_pylist() == scores


def test_what_combined_cannot_judge_is_said_before_the_first_step(domains, tmp_path, caplog):
    source, target = domains
    config = DannConfig(source=source, target=target, out=str(tmp_path / "run"), select="combined", **SMALL)
    plan_adaptation(replace(config, output="boundary"))
    assert "not which of them" not in caplog.text
    plan_adaptation(replace(config, num_classes=3))
    assert "any of the 3 classes but the background is told, not which of them" in caplog.text
    assert plan_adaptation(replace(config, select="last")).standard is None


def test_certainty_is_that_of_the_pixels_that_count(domains, make_model):
    network, spec = load_trained(make_model())
    reader = CropReader(open_collection(domains[0]), ["s0"], CropView.of(spec, labelled=False), "label")
    sample = reader.read("s0", Region.whole((48, 48)))
    with torch.no_grad():
        foreground = network(torch.from_numpy(sample.image)[None])[0, 0].sigmoid().double().numpy()[sample.valid]
    entropy = -(foreground * np.log2(foreground) + (1 - foreground) * np.log2(1 - foreground)).mean()
    assert certainty(network, reader, ["s0"], spec, torch.device("cpu")) == pytest.approx(1 - entropy, abs=1e-6)
    assert 0 < len(foreground) < 48 * 48
