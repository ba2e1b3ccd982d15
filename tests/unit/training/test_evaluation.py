import numpy as np
import pytest
import torch
from torch import nn

from raydom.config import ModelSpec, NetworkConfig
from raydom.training import evaluation
from raydom.training.data import CropReader
from raydom.training.evaluation import confusion, mean_f1, predicted_classes, validation_score


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
    network, reader = Brightness().train(), CropReader(collection, ("a", "b"), spec)
    for window_px in (2048, 4):
        monkeypatch.setattr(evaluation, "WINDOW_PX", window_px)
        assert validation_score(network, reader, ("a", "b"), spec, torch.device("cpu")) == pytest.approx(expected)
    assert network.training
