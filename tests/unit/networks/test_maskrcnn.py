import numpy as np
import pytest
import torch

from raydom.config import MaskRCNNConfig, NetworkConfig
from raydom.networks.maskrcnn import Detections, MaskRCNN, _targets, label_image, pasted_mask

FEW = MaskRCNNConfig(proposals=20, rpn_samples=16, roi_samples=8, detections=5, min_score=0.0)


@pytest.fixture(scope="module")
def network() -> MaskRCNN:
    return MaskRCNN(NetworkConfig(name="maskrcnn", in_channels=2, encoder="resnet18", output="objects", maskrcnn=FEW))


def test_objects_are_found_in_images_of_any_size_and_do_not_depend_on_their_neighbours(network):
    network.eval()
    images = torch.rand(2, 2, 45, 70)
    with torch.inference_mode():
        both, first, again = network(images), network(images[:1]), network(images[:1])
    assert [len(found) for found in both] == [5, 5]
    boxes = both[0].boxes
    assert bool((boxes[:, 0::2] <= 70).all()) and bool((boxes[:, 1::2] <= 45).all()) and bool((boxes >= 0).all())
    assert both[0].masks.shape == (5, 28, 28)
    torch.testing.assert_close(first[0].boxes, both[0].boxes, rtol=1e-4, atol=1e-3)
    assert torch.equal(first[0].boxes, again[0].boxes) and torch.equal(first[0].masks, again[0].masks)
    assert bool((both[0].scores.diff() <= 0).all())


@pytest.mark.parametrize("bfloat16", [False, True])
def test_five_finite_losses_with_objects_and_without(network, bfloat16):
    network.train()
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    labels[0, 3:12, 5:20], labels[0, 30:60, 30:50] = 9, 4
    valid = torch.ones_like(labels, dtype=torch.bool)
    for truth in (labels, torch.zeros_like(labels)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            losses = network.losses(torch.rand(2, 2, 64, 64), truth, valid)
        assert set(losses) == {"proposal", "proposal_box", "class", "box", "mask"}
        if truth.any():  # without training an object is as likely as not: large first steps kill the heads
            assert losses["mask"].item() == pytest.approx(np.log(2), abs=0.05)
            assert losses["class"].item() == pytest.approx(np.log(2), abs=0.3)
        network.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)
    assert losses["mask"].item() == losses["box"].item() == 0.0


def test_an_empty_image_has_no_objects_and_no_nan(network):
    network.eval()
    with torch.inference_mode():
        found = network(torch.zeros(1, 2, 32, 32))[0]
    assert bool(found.boxes.isfinite().all()) and bool(found.masks.isfinite().all())
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 28, 28))
    assert len(none) == 0 and not bool(label_image(none, (4, 5), 0.5).any())


def test_what_hardly_anything_speaks_for_is_not_looked_at():
    config = NetworkConfig(name="maskrcnn", in_channels=2, encoder="resnet18", output="objects", maskrcnn=FEW)
    network = MaskRCNN(config).eval()
    objectness = network.network.rpn.head.cls_logits
    with torch.inference_mode():
        objectness.weight.zero_()
        for confidence, found in ((0.11, 5), (0.09, 0)):
            objectness.bias.fill_(np.log(confidence / (1 - confidence)))
            assert len(network(torch.rand(1, 2, 64, 64))[0]) == found


def test_targets_are_the_boxes_and_masks_of_the_numbers():
    labels = torch.tensor([[0, 5, 5, 0], [0, 0, 5, 2], [0, 0, 0, 2]])
    targets = _targets(labels)
    assert targets["boxes"].tolist() == [[3, 1, 4, 3], [1, 0, 3, 2]]
    assert torch.equal(targets["masks"].bool(), torch.stack([labels == 2, labels == 5]))
    empty = _targets(torch.zeros(3, 4, dtype=torch.int64))
    assert (empty["boxes"].shape, empty["masks"].shape, empty["labels"].shape) == ((0, 4), (0, 3, 4), (0,))


def test_a_mask_is_pasted_by_pixel_centres_and_the_surer_object_wins():
    left_half = (torch.arange(28) < 14).float().expand(28, 28)
    whole = torch.ones(28, 28)
    boxes = torch.tensor([[2.0, 1.0, 10.0, 4.0], [4.0, 0.0, 7.0, 4.0]])
    found = Detections(boxes, torch.tensor([0.9, 0.8]), torch.stack([left_half, whole]))
    top, left, mask = pasted_mask(found, 0, (5, 12), 0.5)
    assert (top, left, tuple(mask.shape)) == (1, 2, (3, 8))
    assert mask.tolist() == [[True] * 4 + [False] * 4] * 3
    labels = label_image(found, (5, 12), 0.5)
    assert labels.tolist() == [
        [0, 0, 0, 0, 2, 2, 2, 0, 0, 0, 0, 0],
        *[[0, 0, 1, 1, 1, 1, 2, 0, 0, 0, 0, 0]] * 3,
        [0] * 12,
    ]
