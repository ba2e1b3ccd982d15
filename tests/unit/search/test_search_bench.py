import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from raydom.algorithms.trained import load_trained
from raydom.config import ModelSpec, NetworkConfig
from raydom.errors import ConfigError, DataError
from raydom.networks.unet import UNet
from raydom.search.bench import Bench, BenchPlan, plan_bench
from raydom.search.objectives import LABEL_FREE
from raydom.storage.model_run import write_model_run


def discs(seed, shape=(96, 80), dark=40, bright=200):
    """Bright discs on dark with some noise, and their numbers."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = np.zeros(shape, np.uint8)
    for number, place in enumerate(generator.integers(8, np.array(shape) - 8, (12, 2)), start=1):
        inside[np.hypot(y - place[0], x - place[1]) < generator.integers(3, 7)] = number
    noise = generator.integers(0, 30, (1, *shape))
    return (np.where(inside > 0, bright, dark)[None] + noise).astype(np.uint8), inside


@pytest.fixture
def model(tmp_path):
    """Writes runs of a U-Net that tells by brightness alone: all weights are 0 but those that hand the image on."""

    def make(name="model", in_channels=1, **fields):
        config = NetworkConfig(
            in_channels=in_channels, base_channels=2, depth=1, norm="none", output=fields.pop("output", "classes")
        )
        weights = {name: torch.zeros_like(value) for name, value in UNet(config).state_dict().items()}
        for name_of, value in weights.items():
            if name_of.startswith(("encoder.0", "decoder.0")) and value.ndim == 4:
                value[0, 0, 1, 1] = 1.0
        weights["head.weight"][:, 0], weights["head.bias"][:] = 20.0, -10.0
        spec = ModelSpec(
            network=config,
            channels=tuple(f"c{n}" for n in range(in_channels)),
            low=0.0,
            high=1.0,
            pixel_size_um=None,
            total_stride=2,
            receptive_field_px=8,
        )
        run = str(tmp_path / name)
        write_model_run(run, spec, {name: value.numpy() for name, value in weights.items()}, {})
        return run

    return make


@pytest.fixture
def domains(make_collection):
    """Discs of a source, and of a target that is darker; all labelled but the last image of the target."""
    sources = {f"s{n}": discs(n) for n in range(3)}
    targets = {f"t{n}": discs(10 + n, dark=20, bright=120) for n in range(4)}
    collections = [
        make_collection(name, {i: pixels for i, (pixels, _) in images.items()}, labels, label_kinds=("instance",))
        for name, images, labels in (
            ("source", sources, {i: inside for i, (_, inside) in sources.items()}),
            ("target", targets, {f"t{n}": targets[f"t{n}"][1] for n in range(3)}),
        )
    ]
    return tuple(collection.uri for collection in collections)


SMALL = {"crop_px": 64, "num_crops": 4}


def test_the_truth_is_told_of_the_sample_alone_and_the_probe_apart(model, domains):
    plan = plan_bench(model(), *domains, needs_labels=True, probe=1, **SMALL)
    assert len(plan.probe_ids) == 1 and set(plan.target_ids) == {"t0", "t1", "t2"} - set(plan.probe_ids)
    bench = Bench(plan)
    assert bench.content.pixels.shape == (8, 1, 64, 64)
    bright = bench.content.pixels * 2
    found = bench.scores(bright)
    assert found["true_f1"] == found["true_dice"] == 1.0 and found["probe_f1"] == 1.0
    spoilt = bright.clone()
    spoilt[4:] = 0  # the probe
    found = bench.scores(spoilt)
    assert found["true_f1"] == 1.0 and found["probe_f1"] == 0.0
    assert bench.scores(bright)["combined"] == bench.scores(spoilt)["combined"]


def test_without_labels_there_is_no_truth_and_everything_else(model, domains):
    plan = plan_bench(model(), *domains, num_crops=2, crop_px=64, seed=1)
    with_labels = Bench(replace(plan, target_ids=("t0", "t1")))
    without = Bench(replace(plan, target_ids=("t3",)))
    told, untold = (set(bench.scores(bench.content.pixels)) for bench in (with_labels, without))
    assert told - untold == {f"true_{name}" for name in ("f1", "iou", "dice", "precision", "recall")}
    assert untold >= {*LABEL_FREE, "content", "content_mean"}
    assert untold == set(without.reference)


def test_what_collapses_scores_less_than_what_segments(model, domains):
    bench = Bench(plan_bench(model(), *domains, **SMALL))
    content = bench.content.pixels
    good = bench.scores((content * 2).clamp(max=1))
    unadapted = bench.scores(content)
    nothing, everything = (bench.scores(torch.full_like(content, value)) for value in (0.0, 1.0))
    noise = bench.scores(torch.rand(content.shape, generator=torch.Generator().manual_seed(0)))
    assert nothing["certainty"] > good["certainty"] - 0.05 and nothing["agreement"] == 1.0
    for bad in (unadapted, nothing, everything, noise):
        assert bad["combined"] < good["combined"] - 0.1, bad
    assert good["content"] > 0.9 and noise["content"] < 0.2
    assert bench.reference["combined"] >= good["combined"]


def test_a_plan_gives_the_same_scores_in_every_process(model, domains):
    plan = plan_bench(model(), *domains, **SMALL)
    assert plan_bench(model("again"), *domains, **SMALL).target_ids == plan.target_ids
    stored = json.loads(json.dumps(asdict(plan)))
    again = BenchPlan(**{name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()})
    assert again == plan
    first, other = Bench(plan), Bench(again)
    torch.testing.assert_close(first.content.pixels, other.content.pixels, rtol=0, atol=0)
    assert first.scores(first.content.pixels) == other.scores(other.content.pixels)
    assert first.scores(first.content.pixels, network=other.network) == first.scores(first.content.pixels)
    assert Bench(replace(plan, seed=1)).scores(first.content.pixels) != first.scores(first.content.pixels)


def test_objects_are_scored_where_model_and_truth_number_them(model, domains):
    plan = plan_bench(model(output="boundary"), *domains, needs_labels=True, **SMALL)
    bench = Bench(plan)
    found = bench.scores(bench.content.pixels * 2)
    assert found["true_f1"] == 1.0 and 0 < found["true_object_f1_50"] <= 1


def test_small_images_are_mirrored_and_that_part_does_not_count(model, domains):
    bench = Bench(plan_bench(model(), *domains, crop_px=128, num_crops=2, needs_labels=True))
    assert bench.content.pixels.shape == (2, 1, 128, 128)
    styled = bench.content.pixels * 2
    assert bench.scores(styled)["true_f1"] == 1.0
    spoilt = styled.clone()
    spoilt[:, :, 96:] = 1 - spoilt[:, :, 96:]
    assert bench.scores(spoilt)["true_f1"] == 1.0


def test_a_segmenter_that_tells_nothing_anywhere_gets_finite_scores_and_one_that_diverged_none(model, domains):
    run = model()
    bench = Bench(plan_bench(run, *domains, **SMALL))
    network = load_trained(run)[0]
    network.head.bias.fill_(-100.0)
    blind = bench.scores(bench.content.pixels, network=network)
    assert np.isfinite([value for value in blind.values() if value is not None]).all()
    assert blind["combined"] < bench.scores(bench.content.pixels)["combined"]
    network.head.bias.fill_(float("nan"))
    with pytest.raises(DataError, match="has diverged"):
        bench.scores(bench.content.pixels, network=network)


def test_crops_lie_where_the_mask_is_valid(model, make_collection, domains):
    pixels, _ = discs(0, (64, 256))
    mask = np.zeros((64, 256), np.uint8)
    mask[:, 192:] = 1
    masked = make_collection("masked", {"a": pixels}, {"a": mask}).uri
    bench = Bench(plan_bench(model(), domains[0], masked, mask="label", crop_px=32, num_crops=4))
    assert bench._crops.valid.float().mean(dim=(1, 2)).min() >= 0.5


def test_what_cannot_be_scored_is_refused_beforehand(model, domains, make_collection, tmp_path):
    source, target = domains
    run = model()
    colour = make_collection("colour", {"a": np.zeros((3, 64, 64), np.uint8)}).uri
    bare = make_collection("bare", {"a": discs(0)[0]}).uri
    for told, error, arguments in (
        ("multiple of the network's total stride of 2 px; got 63. Choose 64", ConfigError, {"crop_px": 63}),
        ("num_crops must be >= 1", ConfigError, {"num_crops": 0}),
        ("has 3 channels", ConfigError, {"target": colour}),
        ("no image has labels 'label'", DataError, {"target": bare, "needs_labels": True}),
        ("a probe of 1 images needs", DataError, {"target": bare, "probe": 1}),
        ("3 images have labels 'label'; a probe of 4 images needs 4", DataError, {"probe": 4}),
        ("have no mask 'fov', such as", DataError, {"mask": "fov"}),
        ("there is no model run", DataError, {"model": str(tmp_path / "nowhere")}),
    ):
        asked = {"model": run, "source": source, "target": target} | SMALL | arguments
        with pytest.raises(error, match=told):
            plan_bench(**asked)
    bench = Bench(plan_bench(run, source, target, **SMALL))
    with pytest.raises(ConfigError, match="shaped"):
        bench.scores(bench.content.pixels[:1])
    with pytest.raises(DataError, match="not finite"):
        bench.scores(bench.content.pixels * float("nan"))
