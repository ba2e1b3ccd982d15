import copy
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from raydom.config import ModelSpec, NetworkConfig
from raydom.errors import DataError
from raydom.networks.unet import UNet
from raydom.training import distributed
from raydom.training.domains import DomainImages
from raydom.training.unlabelled import TargetScore, labelled_standard

NETWORK = NetworkConfig(in_channels=1, base_channels=2, depth=1, norm="none")
SPEC = ModelSpec(
    network=NETWORK, channels=("c",), low=0.0, high=1.0, pixel_size_um=None, total_stride=2, receptive_field_px=8
)
CPU = torch.device("cpu")


def discs(seed, dark, bright, shape=(96, 80)):
    """Discs with some noise, and where they are."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside = np.zeros(shape, np.uint8)
    for place in generator.integers(8, np.array(shape) - 8, (12, 2)):
        inside[np.hypot(y - place[0], x - place[1]) < generator.integers(3, 7)] = 1
    return (np.where(inside > 0, bright, dark)[None] + generator.integers(0, 30, (1, *shape))).astype(np.uint8), inside


def at_brightness(threshold):
    """A U-Net that tells what is brighter than a fraction of the legal range."""
    network = UNet(NETWORK)
    weights = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    for name, value in weights.items():
        if name.startswith(("encoder.0", "decoder.0")) and value.ndim == 4:
            value[0, 0, 1, 1] = 1.0
    weights["head.weight"][:, 0], weights["head.bias"][:] = 40.0, -40.0 * threshold
    network.load_state_dict(weights)
    return network.train()


@pytest.fixture
def domains(make_collection):
    """Bright discs of a source with labels, and the same kind of discs, darker and without labels, of a target."""
    found = []
    for name, first, bright in (("source", 0, 200), ("target", 10, 100)):
        images = {f"{name}{n}": discs(first + n, 30, bright) for n in range(3)}
        labels = {} if name == "target" else {i: inside for i, (_, inside) in images.items()}
        uri = make_collection(name, {i: pixels for i, (pixels, _) in images.items()}, labels).uri
        found.append(DomainImages(name, uri, tuple(images)[:2], tuple(images)[2:], ""))
    return tuple(found)


@pytest.fixture
def score(domains):
    source, target = domains
    standard = labelled_standard(source, SPEC, 0, None)
    return TargetScore(target, standard, SPEC, num_crops=5, seed=0, mask=None, device=CPU)


def test_what_segments_the_target_scores_more_than_what_does_so_in_part_or_collapses(score):
    right, in_part, noise, nothing, everything = (score(at_brightness(t)) for t in (0.32, 0.44, 0.18, 2.0, -1.0))
    assert right > 0.8 and right > in_part + 0.1 and right > noise + 0.1
    assert max(nothing, everything) < 0.65


def test_processes_share_the_crops_and_all_have_the_score_of_one(score, monkeypatch):
    networks = [at_brightness(0.4)]
    alone = score(networks[0])
    assert networks[0].training and alone == score(networks[0])
    for num in (2, 7):
        here, barrier = threading.local(), threading.Barrier(num)
        shared, found = [None] * num, [None] * num
        asked = []

        def gathered(value, here=here, barrier=barrier, shared=shared):
            shared[here.rank] = value
            barrier.wait(60)
            everyone = list(shared)
            barrier.wait(60)
            return everyone

        monkeypatch.setattr(distributed, "rank", lambda here=here: here.rank)
        monkeypatch.setattr(distributed, "world_size", lambda num=num: num)
        monkeypatch.setattr(distributed, "gathered", gathered)

        def work(rank, here=here, found=found, asked=asked):
            here.rank = rank
            network = copy.deepcopy(networks[0])
            network.register_forward_hook(lambda *_: asked.append(rank))
            found[rank] = score(network)

        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(num)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert found == [alone] * num
        assert len(asked) == 5 * 2  # each crop once, as it is and turned


def test_crops_are_drawn_by_the_seed_where_the_masks_are_valid(domains, make_collection, score):
    source, target = domains
    standard = labelled_standard(source, SPEC, 0, None)
    assert labelled_standard(source, SPEC, 0, None) == standard
    assert TargetScore(target, standard, SPEC, num_crops=5, seed=0, mask=None, device=CPU)(at_brightness(0.4)) == score(
        at_brightness(0.4)
    )
    pixels, inside = discs(0, 30, 200)
    field = np.zeros_like(inside)
    field[:, :40] = 1
    spoilt = np.where(field > 0, pixels[0], 255)[None].astype(np.uint8)
    for image, mask in ((pixels, None), (spoilt, "label")):
        uri = make_collection(f"seen through {mask}", {"a": image}, {"a": field}).uri
        one = DomainImages("one", uri, ("a",), ("a",), "")
        found = TargetScore(one, standard, SPEC, num_crops=1, seed=0, mask=mask, device=CPU)(at_brightness(0.5))
        assert found > 0.75


def test_labels_of_nothing_are_no_standard(domains, make_collection):
    source, _ = domains
    empty = make_collection("empty", {"a": np.zeros((1, 40, 40), np.uint8)}, {"a": np.zeros((40, 40), np.uint8)}).uri
    with pytest.raises(DataError, match=r"no pixel is labelled 'label' in 16 crops of 256 px.*--select last"):
        labelled_standard(replace(source, collection=empty, training_ids=("a",), validation_ids=()), SPEC, 0, None)
