import numpy as np
import pytest
import torch
from torch import nn

from raydom.config import ModelSpec, NetworkConfig
from raydom.images.targets import instance_targets
from raydom.networks.maskrcnn import Detections
from raydom.training import evaluation
from raydom.training.crops import CropReader, CropView
from raydom.training.evaluation import confusion, matched_objects, mean_f1, predicted_classes, validation_score


def test_confusion_by_hand():
    truth = torch.tensor([[0, 1, 1, 2, 2, 2]])
    predicted = torch.tensor([[1, 1, 0, 2, 2, 0]])
    valid = torch.tensor([[True, True, True, True, True, False]])
    # class: true positives, false positives, false negatives
    assert confusion(predicted, truth, valid, 3).tolist() == [[0, 1, 1], [1, 1, 1], [2, 0, 0]]


def test_f1_by_hand():
    assert mean_f1(torch.tensor([[9, 9, 9], [3, 1, 1], [2, 0, 0]])) == pytest.approx((0.75 + 1) / 2)


def test_an_absent_class_does_not_count_and_nothing_to_find_is_perfect():
    assert mean_f1(torch.tensor([[9, 0, 0], [3, 1, 1], [0, 0, 0]])) == pytest.approx(0.75)
    assert mean_f1(torch.tensor([[9, 0, 0], [0, 0, 0]])) == 1.0


def test_the_threshold_itself_is_foreground():
    assert predicted_classes(torch.tensor([[[0.0, -1e-3, 4.0]]]), 0.5).tolist() == [[1, 0, 1]]
    assert predicted_classes(torch.tensor([[[0.0]], [[2.0]], [[1.0]]]), 0.5).tolist() == [[1]]


class Brightness(nn.Module):
    def forward(self, x):
        return x[:, :1] - 0.5


def test_the_score_is_pooled_over_images_and_windows(make_collection, monkeypatch):
    generator = np.random.default_rng(0)
    images = {name: generator.integers(0, 256, (1, h, w), np.uint8) for name, h, w in (("a", 7, 5), ("b", 3, 11))}
    labels = {name: (image[0] > 100).astype(np.uint8) * 9 for name, image in images.items()}
    collection = make_collection("c", images, labels)
    spec = ModelSpec(
        network=NetworkConfig(), channels=("c0",), low=0.0, high=1.0, pixel_size_um=None, total_stride=1,
        receptive_field_px=0,
    )  # fmt: skip
    values = np.concatenate([image.ravel() for image in images.values()])
    truth, found = values > 100, values >= 127.5
    expected = 2 * (truth & found).sum() / (truth.sum() + found.sum())
    network, reader = Brightness().train(), CropReader(collection, ("a", "b"), CropView.of(spec))
    for window_px in (2048, 4):
        monkeypatch.setattr(evaluation, "WINDOW_PX", window_px)
        assert validation_score(network, reader, ("a", "b"), spec, torch.device("cpu")) == pytest.approx(expected)
    assert network.training


def test_a_network_that_is_not_exact_is_scored_in_the_windows_of_its_spec(make_collection):
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape[-2:]))
            return x[:, :1]

    collection = make_collection("w", {"a": np.zeros((1, 40, 20), np.uint8)}, {"a": np.zeros((40, 20), np.uint8)})
    spec = ModelSpec(
        network=NetworkConfig(name="u2netp"), channels=("c0",), low=0.0, high=1.0, pixel_size_um=None, total_stride=32,
        receptive_field_px=128, exact=False, window_px=32,
    )  # fmt: skip
    validation_score(Watching(), CropReader(collection, ("a",), CropView.of(spec)), ("a",), spec, torch.device("cpu"))
    assert seen == [(32, 20), (8, 20)]


def scored(make_collection, output, told, labels):
    """The validation score of a network that tells the same of every image."""
    pixels = {name: np.zeros((1, *label.shape), np.uint8) for name, label in labels.items()}
    collection = make_collection("s", pixels, labels)
    network = NetworkConfig(name="maskrcnn" if output == "objects" else "unet", output=output)
    spec = ModelSpec(
        network=network, channels=("c0",), low=0.0, high=1.0, pixel_size_um=None, total_stride=1, receptive_field_px=0
    )
    names = tuple(labels)
    return validation_score(told, CropReader(collection, names, CropView.of(spec)), names, spec, torch.device("cpu"))


LABEL = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]], np.uint8)


class Certain(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.probabilities = torch.from_numpy(np.stack([first, second]).astype(np.float64))

    def forward(self, x):
        return torch.logit(self.probabilities.float())[None].expand(len(x), -1, -1, -1)


def test_objects_and_their_borders_are_scored_alike(make_collection):
    border = np.zeros((4, 4))
    border[:3, 2] = border[2, :3] = 1
    assert scored(make_collection, "boundary", Certain(LABEL, border), {"a": LABEL}) == 1.0
    half = border.copy()
    half[2, :2] = 0  # three of five: F1 = 2 * 3 / (3 + 5)
    assert scored(make_collection, "boundary", Certain(LABEL, half), {"a": LABEL}) == pytest.approx((1 + 0.75) / 2)


def test_the_distance_is_scored_by_its_error_within_objects(make_collection):
    truth = instance_targets(LABEL, "distance")[1]
    far = np.clip(truth - 0.2, 0, 1)
    far[LABEL == 0] = 0.9  # outside of objects nobody asks
    assert scored(make_collection, "distance", Certain(LABEL, far), {"a": LABEL}) == pytest.approx((1 + 0.8) / 2)


def test_objects_are_found_above_half_of_their_union():
    truth = np.array([[1, 1, 1, 1, 0, 7, 7, 9]])
    assert matched_objects(truth, truth) == (3, 0, 0)
    # three of four pixels (IoU .75), one of two (IoU exactly .5), and one that is not there
    assert matched_objects(np.array([[5, 5, 5, 0, 3, 0, 2, 0]]), truth) == (1, 2, 2)
    assert matched_objects(np.zeros((1, 8), np.int32), truth) == (0, 0, 3)
    assert matched_objects(truth, np.zeros((1, 8), np.int32)) == (0, 3, 0)


def test_detections_are_scored_as_objects(make_collection):
    class Told(nn.Module):
        def forward(self, x):
            boxes = torch.tensor([[0.0, 0.0, 3.0, 3.0], [3.0, 3.0, 4.0, 4.0]])
            return [Detections(boxes, torch.tensor([0.9, 0.8]), torch.ones(2, 28, 28))] * len(x)

    assert scored(make_collection, "objects", Told(), {"a": LABEL}) == pytest.approx(2 / 3)
