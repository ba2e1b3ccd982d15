"""The whole of a supervised training without Ray: plan, loop, run folder, resume."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from raydom.algorithms.trained import load_trained
from raydom.cluster.commands import train_supervised
from raydom.commands import SupervisedConfig
from raydom.config import ImageFilter, MaskRCNNConfig, NetworkConfig, RunConfig, TrainConfig
from raydom.errors import ConfigError, DataError
from raydom.images.synthetic import MICROSCOPES, make_cells, render
from raydom.networks.build import build_network
from raydom.training import runner
from raydom.training.crops import CropReader, CropView
from raydom.training.evaluation import validation_score
from raydom.training.loop import Training
from raydom.training.runner import complete, train_here
from raydom.training.supervised import plan_supervised


def cells(num_images: int, shape=(40, 52)):
    generator = np.random.default_rng(0)
    images, labels = {}, {}
    for number in range(num_images):
        scene, labels[f"i{number}"] = make_cells(shape, generator, radius_px=(4.0, 7.0))
        images[f"i{number}"] = render(scene, MICROSCOPES["source"], generator)
    return images, labels


def config(collection, out, /, **fields) -> SupervisedConfig:
    train = {"steps": 6, "batch_size": 2, "crop_px": 32, "validate_every": 2} | fields.pop("train", {})
    values = {
        "collection": collection.uri, "out": str(out), "base_channels": 4, "depth": 2,
        "train": TrainConfig(**train), "run": RunConfig(serial=True, quiet=True),
    }  # fmt: skip
    return SupervisedConfig(**(values | fields))


def run(configuration):
    return complete(plan_supervised(configuration), train_here)


@pytest.fixture
def four(make_collection):
    return make_collection("four", *cells(4))


def test_overfits_one_image(make_collection, tmp_path):
    collection = make_collection("one", *cells(1, (64, 64)))
    train = {"steps": 80, "batch_size": 4, "learning_rate": 0.01, "validate_every": 40, "augment": ()}
    done = run(config(collection, tmp_path / "run", base_channels=8, train=train))
    assert done.training["best_score"] > 0.9
    network, spec = load_trained(done)
    score = validation_score(
        network, CropReader(collection, ("i0",), CropView.of(spec)), ("i0",), spec, torch.device("cpu")
    )
    assert score == done.training["best_score"]


def test_the_run_says_what_inference_needs(four, tmp_path):
    done = run(config(four, tmp_path / "run"))
    assert (done.spec.channels, done.spec.total_stride, done.spec.receptive_field_px) == (("c0", "c1", "c2"), 4, 23)
    assert (done.spec.low, done.spec.high, done.spec.num_classes, done.spec.label) == (0.0, 1.0, 2, "label")
    assert sorted(done.training["training_images"] + done.training["validation_images"]) == ["i0", "i1", "i2", "i3"]
    assert {"step", "segment.dice", "segment.bce", "learning_rate", "seconds", "score"} == set(
        done.metrics.column_names
    )


def test_an_interrupted_training_ends_with_the_same_weights(four, tmp_path, monkeypatch):
    whole = run(config(four, tmp_path / "whole"))
    plan = plan_supervised(config(four, tmp_path / "broken"))
    assembled = type(plan).assemble

    def assemble(self, device) -> Training:
        training = assembled(self, device)

        def batch_at(step):
            if step == 4:
                raise OSError("the power failed")
            return training.batch_at(step)

        return replace(training, batch_at=batch_at)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        patch.setattr(type(plan), "assemble", assemble)
        complete(plan, train_here)
    with pytest.raises(DataError, match="has not finished"):
        load_trained(plan.out)
    steps = []
    monkeypatch.setattr(runner.TrainingProgress, "update", lambda self, report: steps.append(report.step))
    again = complete(plan, train_here)
    assert steps == [5, 6]
    assert again.content_hash == whole.content_hash


def test_a_finished_run_is_opened_and_another_training_is_refused(four, tmp_path):
    done = run(config(four, tmp_path / "run"))
    assert run(config(four, tmp_path / "run")) == done
    with pytest.raises(ConfigError, match=r"train\.learning_rate: 0\.001 -> 0\.1; .*another --out"):
        run(config(four, tmp_path / "run", depth=2, label="label", train={"learning_rate": 0.1, "seed": 1}))


@pytest.mark.parametrize(
    ("network", "output", "precision"),
    [
        ("unet", "boundary", "float32"),
        ("u2netp", "distance", "bfloat16"),
        ("unetplusplus", "boundary", "bfloat16"),
        ("deeplabv3", None, "bfloat16"),
        ("deeplabv3plus", None, "bfloat16"),
        ("hrnet_w18", None, "bfloat16"),
        ("maskrcnn", None, "bfloat16"),
    ],
)
def test_every_network_trains_and_is_opened_again(make_collection, tmp_path, network, output, precision):
    collection = make_collection("few", *cells(3, (64, 70)), label_kinds=("instance",))
    few = MaskRCNNConfig(proposals=20, rpn_samples=16, roi_samples=8, detections=5, min_score=0.0)
    train = {"steps": 2, "crop_px": 64, "precision": precision}
    fields = {"network": network, "output": output, "encoder": "resnet18", "depth": 3, "maskrcnn": few}
    done = run(config(collection, tmp_path / "run", train=train, **fields))
    opened, spec = load_trained(done)
    assert spec.network.output == output or ("objects" if network == "maskrcnn" else "classes")
    assert (spec.exact, spec.total_stride, spec.window_px) == (opened.exact, opened.total_stride, 128)
    assert 0 <= done.training["best_score"] <= 1
    told = opened(torch.rand(1, 3, 40, 50))
    assert len(told[0]) <= 5 if network == "maskrcnn" else told.shape == (1, spec.network.num_outputs, 40, 50)


def test_class_weights_and_a_file_of_weights_belong_to_the_training(four, tmp_path):
    wanted = {"class_weights": ("balanced",), "network": "deeplabv3", "encoder": "resnet18"}
    with pytest.raises(ConfigError, match=r"no file of weights"):
        plan_supervised(config(four, tmp_path / "run", **wanted, weights="none.pth"))
    encoder = build_network(NetworkConfig(name="deeplabv3", in_channels=3, encoder="resnet18")).network.encoder
    torch.save(encoder.state_dict(), tmp_path / "encoder.pth")
    plan = plan_supervised(config(four, tmp_path / "run", **wanted, weights=str(tmp_path / "encoder.pth")))
    background, foreground = plan.class_weights
    assert background < 1 < foreground and len(plan.settings()["weights_sha256"]) == 64
    given = plan_supervised(config(four, tmp_path / "run", class_weights=("1", "2.5")))
    assert given.class_weights == (1.0, 2.5)


def test_finding_a_learning_rate_writes_nothing(four, tmp_path, capsys):
    assert train_supervised(config(four, tmp_path / "run", find_lr=True)) == 0
    assert not (tmp_path / "run").exists()
    told = capsys.readouterr().out
    assert "smoothed loss" in told and "Suggestion: --learning-rate " in told


def test_three_classes_and_a_mask_train_too(make_collection, tmp_path):
    images, labels = cells(3)
    collection = make_collection("c", images, {name: (label % 3).astype(np.uint8) for name, label in labels.items()})
    done = run(config(collection, tmp_path / "run", num_classes=3, mask="label"))
    assert load_trained(done)[0](torch.rand(1, 3, 9, 9)).shape == (1, 3, 9, 9)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"run": RunConfig(workers=9)}, ConfigError, "9 workers cannot share 3 training images; give --workers 3"),
        ({"network": "segformer"}, ConfigError, "unknown network"),
        ({"label": "nuclei"}, DataError, "there is label; choose with --label"),
        ({"depth": 6}, ConfigError, "multiple of the network's total stride of 64 px; got 32"),
        ({"images": ImageFilter(domain="moon")}, ConfigError, "no image has domain moon"),
        ({"collection": "/nowhere"}, DataError, "no collection here"),
        ({"mask": "fov"}, DataError, "no mask 'fov'"),
        ({"network": "deeplabv3", "train": {"batch_size": 1}}, ConfigError, "batch_size must be >= 2"),
        ({"class_weights": ("1", "2", "3")}, ConfigError, "2 numbers > 0, one a class; got 1,2,3"),
        ({"class_weights": ("balanced",), "output": "boundary"}, ConfigError, "are for output classes; got output bou"),
        ({"network": "maskrcnn", "output": "classes"}, ConfigError, "maskrcnn tells objects"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(four, tmp_path, fields, error, message):
    with pytest.raises(error, match=message):
        plan_supervised(config(four, tmp_path / "run", **fields))
    assert not (tmp_path / "run").exists()


def test_two_serial_workers_and_a_missing_gpu_are_refused(four, tmp_path):
    two = config(four, tmp_path / "a", run=RunConfig(workers=2, serial=True, quiet=True))
    with pytest.raises(ConfigError, match="one worker; got workers=2"):
        run(two)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="torch sees no GPU"):
            run(config(four, tmp_path / "b", run=RunConfig(gpus_per_worker=1.0, serial=True, quiet=True)))


@pytest.mark.parametrize("output", ["classes", "boundary"])
def test_a_run_shows_where_it_sees_objects(four, tmp_path, monkeypatch, output):
    shown = []
    monkeypatch.setattr("raydom.training.samples.picture", lambda rows: shown.append(rows) or b"")
    run(config(four, tmp_path / "run", output=output, sample_every=2, train={"steps": 2}))
    ((images, objects),) = shown
    network, _ = load_trained(str(tmp_path / "run"))
    with torch.no_grad():
        expected = network(torch.stack(images))[:, :1].sigmoid()
    torch.testing.assert_close(torch.stack(objects), expected)


def test_workers_that_cannot_be_are_refused_before_the_folder_is_claimed(four, tmp_path):
    for fields, told in (
        ({"run": RunConfig(serial=True, workers=2)}, "workers=2"),
        ({"run": RunConfig(serial=True), "train": {"min_workers": 2}}, "workers=2"),
        ({"run": RunConfig(workers=2), "train": {"min_workers": 3}}, "--min-workers 3 is more than --workers 2"),
    ):
        with pytest.raises(ConfigError, match=told):
            run(config(four, tmp_path / "run", **fields))
    assert not (tmp_path / "run").exists()

    def refused(plan):
        raise ConfigError("Ray has 2 CPUs")

    with pytest.raises(ConfigError, match="Ray has 2"):
        complete(plan_supervised(config(four, tmp_path / "run")), refused)
    assert not list((tmp_path / "run").iterdir())
    with pytest.raises(ConfigError, match="sample_every must be >= 1"):
        config(four, tmp_path / "run", sample_every=0)
