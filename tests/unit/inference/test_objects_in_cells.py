"""Objects that a network tells as a list, over cells: the same for any block size, restartable, and told when some may
be missing."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy import ndimage
from torch import nn

from raydom.config import (
    BlockConfig,
    InstanceConfig,
    MaskRCNNConfig,
    ModelSpec,
    NetworkConfig,
    PredictionConfig,
    RunConfig,
)
from raydom.errors import ConfigError
from raydom.inference import models
from raydom.inference.job import BlockJob
from raydom.inference.objects import ObjectStages
from raydom.inference.predictor import Predictor
from raydom.inference.runner import execute_serially, run_jobs
from raydom.networks.maskrcnn import Detections
from raydom.storage import files
from raydom.storage.collection import open_collection
from raydom.storage.model_run import write_model_run

QUIET = RunConfig(quiet=True, serial=True)


class Boxes(nn.Module):
    """Stands for a trained Mask R-CNN: finds bright rectangles, whole or cut, surest the largest."""

    def forward(self, images):
        found = []
        for image in images:
            labels, n = ndimage.label(image[0].numpy() > 0.5)
            boxes = [(s[1].start, s[0].start, s[1].stop, s[0].stop) for s in ndimage.find_objects(labels)]
            boxes.sort(key=lambda box: -(box[2] - box[0]) * (box[3] - box[1]))
            found.append(
                Detections(
                    torch.tensor(boxes, dtype=torch.float32).reshape(n, 4),
                    torch.linspace(0.9, 0.8, n),
                    torch.ones(n, 28, 28),
                )
            )
        return found


class Moody(Boxes):
    """Finds what no border of what it sees cuts, and of that more or less by how bright the whole is."""

    def forward(self, images):
        found = []
        for one, image in zip(super().forward(images), images, strict=True):
            inside = (one.boxes[:, :2] > 0).all(1) & (one.boxes[:, 2:] < torch.tensor(image.shape[:0:-1])).all(1)
            keep = inside & (torch.arange(len(one)) % 5 != int(1000 * image.mean()) % 5)
            found.append(Detections(one.boxes[keep], one.scores[keep], one.masks[keep]))
        return found


def rectangles():
    """A grid of 64 of them, of several sizes."""
    rng, pixels = np.random.default_rng(3), np.zeros((1, 200, 170), np.uint8)
    for y in range(4, 180, 22):
        for x in range(3, 150, 20):
            h, w = rng.integers(4, 16, 2)
            pixels[0, y : y + h, x : x + w] = 255
    return pixels


@pytest.fixture
def job(tmp_path, make_collection, monkeypatch):
    """Makes a job of a network that stands for a trained Mask R-CNN."""

    def make(network, name="o", images=None, limits=None, **options):
        config = NetworkConfig(
            name="maskrcnn", output="objects", encoder="resnet18", maskrcnn=limits or MaskRCNNConfig()
        )
        spec = ModelSpec(
            network=config, channels=("c0",), low=0.0, high=1.0, pixel_size_um=None, total_stride=32,
            receptive_field_px=128, exact=False,
        )  # fmt: skip
        run = str(tmp_path / "model")
        write_model_run(run, spec, {"x": np.zeros(1, np.float32)}, {})
        monkeypatch.setattr(models, "load_trained", lambda name: (network().eval(), None))
        uri = make_collection("c", images or {"a": rectangles()}).uri
        return BlockJob(name="o", collection=uri, out=str(tmp_path / name), model=run, **options)

    return make


def done(job, **options):
    (report,) = run_jobs([job], dataclasses.replace(QUIET, **options), execute_serially)
    return report


def made_by(job):
    image = open_collection(job.out)["a"]
    return image.numpy(), image.labels("label").numpy(), pq.read_table(f"{job.out}/objects")


@pytest.mark.parametrize("tta", [1, 8])
def test_detected_objects_are_those_of_the_image_for_any_cut(job, tta) -> None:
    images = {"a": rectangles(), "b": np.zeros((1, 40, 50), np.uint8)}
    expected, _ = ndimage.label(images["a"][0])
    for size in (64, 96, 256):
        one = job(
            Boxes, f"o{size}", images, prediction=PredictionConfig(tta=tta), blocks=BlockConfig(block_size=size),
            instances=InstanceConfig(halo_px=32),
        )  # fmt: skip
        report = done(one)
        assert report.ok, report.failed
        made = open_collection(one.out)
        assert np.array_equal(made["a"].labels("label").numpy(), expected)
        assert not made["b"].labels("label").numpy().any()
        assert made["a"].record.label_kinds == ("instance",)


def test_a_detector_that_answers_by_what_it_sees_tells_the_same_for_any_block_size(job) -> None:
    cells, made = InstanceConfig(halo_px=24, cell_px=32), []
    for size in (32, 96, 256):
        one = job(Moody, f"o{size}", instances=cells, blocks=BlockConfig(block_size=size))
        report = done(one)
        assert report.ok, report.failed
        made.append(made_by(one))
        assert report.num_objects == len(made[-1][2])
    pixels, labels, table = made[0]
    assert 20 < labels.max() == len(table)
    assert not np.array_equal(labels > 0, rectangles()[0] > 0)
    for other in made[1:]:
        assert np.array_equal(other[0], pixels) and np.array_equal(other[1], labels) and other[2].equals(table)
    with pytest.raises(ConfigError, match=r"--block-size 80 px .* squares of 32 px"):
        done(job(Moody, "no", instances=cells, blocks=BlockConfig(block_size=80)))


@pytest.mark.parametrize("stage", ["block", "pair", "label"])
def test_an_interrupted_run_goes_on_to_the_same_objects(job, monkeypatch, stage) -> None:
    options = {"instances": InstanceConfig(halo_px=24, cell_px=32), "blocks": BlockConfig(block_size=64)}
    whole = job(Moody, "whole", **options)
    assert done(whole).ok
    one, write, left = job(Moody, **options), Predictor.write, [5]

    def stop(self, task, outputs):
        left[0] -= task.kind == stage
        if left[0] < 0:
            raise KeyboardInterrupt
        return write(self, task, outputs)

    monkeypatch.setattr(Predictor, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        done(one)
    monkeypatch.setattr(Predictor, "write", write)
    assert done(one).ok
    for a, b in zip(made_by(one), made_by(whole), strict=True):
        assert a.equals(b) if hasattr(a, "equals") else np.array_equal(a, b)


def test_what_the_network_found_and_is_lost_is_told_and_found_again(job, monkeypatch) -> None:
    one, compute = job(Boxes, instances=InstanceConfig(halo_px=32, cell_px=32)), ObjectStages.compute
    lost = []

    def lose(self, task, inputs, image):
        if task.kind == "pair" and not lost:
            lost.extend(self.cells.of(task.block)[:1])
            uri = self.job.folder.objects_uri("views", "a", image.record.sha256, lost[0].write)
            files.remove(uri)
        return compute(self, task, inputs, image)

    monkeypatch.setattr(ObjectStages, "compute", lose)
    report = done(one)
    assert lost and not report.ok and "retry-failed" in str(report.failed[0].error)
    assert done(one, retry_failed=True).ok
    assert np.array_equal(made_by(one)[1], ndimage.label(rectangles()[0])[0])


def test_a_list_of_objects_that_is_full_is_an_error(job) -> None:
    pixels = np.zeros((1, 64, 64), np.uint8)
    pixels[0, 2::16, 2::16] = 255  # 16 of them
    report = done(job(Boxes, images={"a": pixels}, limits=MaskRCNNConfig(proposals=16, detections=400)))
    assert "16 objects at most" in report.failed[0].error and "smaller --instances.cell-px" in report.failed[0].error
