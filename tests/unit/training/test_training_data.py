from dataclasses import replace

import numpy as np
import pytest
import torch

from raydom.config import ModelSpec, NetworkConfig, TrainConfig
from raydom.errors import ConfigError, DataError
from raydom.images.intensity import image_statistics
from raydom.images.targets import instance_targets
from raydom.training.crops import CropReader, CropSampler, CropView
from raydom.training.data import (
    balanced_weights,
    check_crops,
    check_trainable,
    common_pixel_size,
    intensity_range,
    split_by_group,
)
from raydom.types import ImageRecord, Region


def record(image_id: str, pixels: np.ndarray | None = None, **fields) -> ImageRecord:
    pixels = np.zeros((1, 2, 2), np.uint8) if pixels is None else pixels
    values = {
        "image_id": image_id, "uri": image_id, "axes": "cyx", "shape": pixels.shape, "dtype": str(pixels.dtype),
        "pixel_size_um": None, "channels": tuple("abc"[: len(pixels)]), "domain": None, "split": None, "group": None,
        "labels": ("label",), "statistics": image_statistics(pixels), "source_file": "", "sha256": "",
    }  # fmt: skip
    return ImageRecord(**(values | fields))


def spec(**fields) -> ModelSpec:
    values = {
        "network": NetworkConfig(), "channels": ("c0",), "low": 0.0, "high": 1.0, "pixel_size_um": None,
        "total_stride": 4, "receptive_field_px": 23,
    }  # fmt: skip
    return ModelSpec(**(values | fields))


# ---------------------------------------------------------------------------------------------------------- splits


def test_a_group_is_never_cut_and_every_image_has_one_place():
    sizes = {"a": 1, "b": 2, "c": 3, "d": 1, "e": 4, "f": 2}
    records = [record(f"{group}{n}", group=group) for group, size in sizes.items() for n in range(size)]
    for seed in range(20):
        training, validation = split_by_group(records, 0.3, seed)
        assert sorted(training + validation) == sorted(r.image_id for r in records)
        assert not {i[0] for i in training} & {i[0] for i in validation}
        assert training and validation
    assert len({split_by_group(records, 0.3, seed) for seed in range(20)}) > 5


def test_images_without_a_group_are_their_own():
    training, validation = split_by_group([record(str(n)) for n in range(10)], 0.2, 0)
    assert (len(training), len(validation)) == (8, 2)


def test_a_stack_is_cut_once_with_a_gap_and_a_warning(caplog):
    training, validation = split_by_group([record(str(n), group="stack") for n in range(10)], 0.2, 0)
    assert (training, validation) == (tuple("0123456"), tuple("89"))
    assert "one group" in caplog.text


def test_marked_splits_are_honoured_and_test_images_are_never_used():
    records = [record("a", split="train"), record("b", split="val"), record("c", split="test"), record("d")]
    assert split_by_group(records, 0.5, 0) == (("a",), ("b",))
    unmarked = [record("a"), record("b", split="val"), record("c", split="test")]
    assert split_by_group(unmarked, 0.5, 0) == (("a",), ("b",))
    marked = [record("d", split="test"), *(record(name, split="train") for name in "abc")]
    training, validation = split_by_group(marked, 0.3, 0)
    assert set(training + validation) == set("abc")


def test_one_image_does_both_with_a_warning(caplog):
    assert split_by_group([record("a")], 0.2, 0) == (("a",), ("a",))
    assert "optimistic" in caplog.text


def test_nothing_to_train_on_is_refused():
    with pytest.raises(DataError, match="all are of split 'test'"):
        split_by_group([record("a", split="test")], 0.2, 0)


# ---------------------------------------------------------------------------------------------- what can be trained


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record("a", labels=("cells",))], "labels 'label': there is cells; choose with --label"),
        ([record("a"), record("b", np.zeros((3, 2, 2), np.uint8))], "a has 1 channels but b has 3"),
        ([record("a", axes="zyx", shape=(4, 2, 2))], "flat images"),
        ([], "no image is chosen"),
    ],
)
def test_collections_that_cannot_be_trained_on_are_refused(records, message):
    with pytest.raises(DataError, match=message):
        check_trainable(records, "label", None)


def test_missing_masks_are_refused_and_unlabelled_images_left_out(caplog):
    with pytest.raises(DataError, match="no mask 'fov'"):
        check_trainable([record("a")], "label", "fov")
    assert [r.image_id for r in check_trainable([record("a"), record("b", labels=())], "label", None)] == ["a"]
    assert "1 of 2 images have no label" in caplog.text


@pytest.mark.parametrize(("crop_px", "message"), [(100, "Choose 96 or 112"), (8, "Choose 16"), (16, "single pixel")])
def test_crops_that_the_network_cannot_use_are_refused(crop_px, message):
    with pytest.raises(ConfigError, match=message):
        check_crops(TrainConfig(steps=1, crop_px=crop_px, batch_size=1), 16, True)


def test_the_intensity_range_is_whole_for_8_bit_and_pooled_otherwise():
    assert intensity_range([record("a")]) == (0.0, 1.0)
    dark = record("a", np.full((1, 4, 4), 1000, np.uint16))
    bright = record("b", np.full((1, 4, 4), 4000, np.uint16))
    np.testing.assert_allclose(intensity_range([dark, bright]), (1000 / 65535, 4000 / 65535), rtol=1e-6)
    assert intensity_range([dark]) == (0.0, 1.0)  # constant: nothing to stretch


def test_the_common_pixel_size_is_the_median_with_a_warning(caplog):
    sized = [record(str(n), pixel_size_um=size) for n, size in enumerate((0.2, 0.5, 0.3))]
    assert common_pixel_size(sized) == 0.3 and "0.2 to 0.5" in caplog.text
    assert common_pixel_size([record("a")]) is None


# ------------------------------------------------------------------------------------------------------------ crops


@pytest.fixture
def ramps(make_collection):
    """Three images whose pixels tell where they come from, of which one is smaller than a crop."""
    images = {
        name: (start + np.arange(h * w).reshape(1, h, w)).astype(np.uint16)
        for name, start, h, w in (("a", 0, 20, 30), ("b", 10_000, 9, 25), ("c", 20_000, 16, 16))
    }
    return make_collection("ramps", images, {name: image[0] % 3 * 7 for name, image in images.items()})


CONFIG = TrainConfig(steps=9, batch_size=4, crop_px=16, seed=5)


def sampler(collection, config=CONFIG, **fields) -> CropSampler:
    return CropSampler(CropReader(collection, ("a", "b", "c"), CropView.of(spec(**fields))), config)


def test_a_batch_is_a_function_of_seed_step_and_rank(ramps):
    first, again = sampler(ramps).batch(3, 1, 2), sampler(ramps).batch(3, 1, 2)
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    other_seed = sampler(ramps, replace(CONFIG, seed=6)).batch(3, 1, 2)
    for other in (sampler(ramps).batch(4, 1, 2), sampler(ramps).batch(3, 0, 2), other_seed):
        assert not torch.equal(first.images, other.images)


def test_two_workers_see_what_one_worker_with_the_double_batch_sees(ramps):
    one = sampler(ramps, replace(CONFIG, batch_size=8)).batch(2)
    two = [sampler(ramps).batch(2, rank, 2).images for rank in range(2)]
    assert torch.equal(one.images, torch.cat(two))


def test_every_image_is_seen_once_an_epoch(ramps):
    crops = sampler(ramps, replace(CONFIG, augment=()))
    seen = [int(crops.crop(number)[0].max() * 65535) // 10_000 for number in range(9)]
    assert [sorted(seen[n : n + 3]) for n in (0, 3, 6)] == [[0, 1, 2]] * 3


def test_label_and_validity_belong_to_the_pixels(ramps):
    crops = sampler(ramps, replace(CONFIG, augment=("flip", "rotate")))
    for number in range(6):
        image, label, valid, _ = crops.crop(number)
        stored = np.rint(image[0] * 65535).astype(int)
        np.testing.assert_array_equal(label, stored % 3 > 0)
        small = 10_000 <= stored.min() < 20_000
        assert valid.sum() == (9 * 16 if small else 16 * 16)


def test_reading_regions_gives_what_reading_from_memory_gives(ramps):
    region = Region((2, 3), (9, 16))
    kept, streamed = (CropReader(ramps, ("a", "b"), CropView.of(spec()), memory_bytes=n) for n in (10**9, 0))
    for a, b in zip(kept.read("b", region), streamed.read("b", region), strict=True):
        np.testing.assert_array_equal(a, b)


def test_intensities_are_normalised_by_the_spec(ramps):
    image, *_ = CropReader(ramps, ("c",), CropView.of(spec(low=0.25, high=0.5))).read("c", Region((0, 0), (1, 1)))
    np.testing.assert_allclose(image, (20_000 / 65535 - 0.25) / 0.25, rtol=1e-5)


def test_a_class_that_the_model_lacks_is_refused(ramps):
    with pytest.raises(DataError, match=r"image a: label 'label' holds the classes 0 to 14.*--num-classes"):
        CropReader(ramps, ("a",), CropView.of(spec(network=NetworkConfig(num_classes=3)))).read(
            "a", Region((0, 0), (5, 5))
        )


def test_a_mask_takes_its_zero_pixels_out(ramps):
    _, label, valid, _ = CropReader(ramps, ("a",), CropView.of(spec()), mask="label").read("a", Region((0, 0), (4, 4)))
    np.testing.assert_array_equal(valid, label == 1)


@pytest.fixture
def squares(make_collection):
    """Two images of which every 8 px a square object of 6 px begins; each pixel tells where it comes from."""
    labels, images = {}, {}
    for name, (h, w) in {"a": (40, 48), "b": (13, 30)}.items():
        y, x = np.mgrid[:h, :w]
        labels[name] = np.where((y % 8 < 6) & (x % 8 < 6), y // 8 * 100 + x // 8 + 1, 0).astype(np.uint16)
        images[name] = (np.arange(h * w).reshape(1, h, w)).astype(np.uint16)
    return make_collection("squares", images, labels, label_kinds=("instance",))


@pytest.mark.parametrize("output", ["boundary", "distance"])
def test_numbers_and_targets_of_objects_follow_the_pixels(squares, output):
    reader = CropReader(squares, ("a", "b"), CropView.of(spec(network=NetworkConfig(output=output))))
    crops = CropSampler(reader, CONFIG)
    whole = {
        name: squares[name].labels("label").numpy(Region.whole(shape))
        for name, shape in (("a", (40, 48)), ("b", (13, 30)))
    }
    for number in range(6):
        image, label, valid, targets = crops.crop(number)
        plain = replace(CONFIG, augment=("flip", "rotate"))
        image = CropSampler(reader, plain).crop(number).image
        stored = np.rint(image[0] * 65535).astype(int)
        source = whole["a"] if valid.all() else whole["b"]
        np.testing.assert_array_equal(label, source.ravel()[stored])
        np.testing.assert_array_equal(targets, instance_targets(source, output).reshape(2, -1)[:, stored])
    assert crops.batch(0).targets.shape == (4, 2, 16, 16)


def test_a_tenth_of_the_crops_is_empty_and_the_others_are_as_they_were(make_collection):
    label = np.zeros((17, 19), np.uint16)
    label[8:10, 8:10] = 3
    image = np.where(label > 0, 0, 200)[None].astype(np.uint8)
    view = CropView.of(spec(network=NetworkConfig(output="boundary")))
    reader = CropReader(make_collection("dots", {"a": image}, {"a": label}), ("a",), view)
    names = ("flip", "rotate", "blur")
    plain, with_empty = (
        CropSampler(reader, replace(CONFIG, augment=augment)) for augment in (names, (*names, "empty"))
    )
    num_empty = 0
    for number in range(120):
        one, other = plain.crop(number), with_empty.crop(number)
        if other.label.any():
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
            continue
        num_empty += 1
        assert not other.targets.any() and np.array_equal(one.valid, other.valid) and one.label.any()
    assert 5 <= num_empty <= 20


@pytest.mark.parametrize("output", ["boundary", "distance"])
def test_targets_are_the_same_where_images_are_not_kept_in_memory(squares, output):
    region = Region((3, 5), (20, 29))
    made = spec(network=NetworkConfig(output=output))
    kept, streamed = (
        CropReader(squares, ("a",), CropView.of(made), memory_bytes=n).read("a", region) for n in (10**9, 0)
    )
    for a, b in zip(kept, streamed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_must_number_objects_where_objects_are_learnt():
    with pytest.raises(DataError, match=r"kind binary .* in all 2 images, but outputs boundary.*--output classes"):
        check_trainable([record(n, label_kinds=("binary",)) for n in "ab"], "label", None, instances=True)
    mixed = [record("a", label_kinds=("binary",)), record("b", label_kinds=("instance",))]
    assert check_trainable(mixed, "label", None, instances=True) == tuple(mixed)


def test_balanced_classes_weigh_the_same(make_collection):
    labels = {"a": np.array([[0, 0, 0, 0], [0, 0, 1, 1]], np.uint8), "b": np.array([[0, 0, 3, 3]], np.uint8)}
    collection = make_collection("c", {name: np.zeros((1, *v.shape), np.uint8) for name, v in labels.items()}, labels)
    records = [image.record for image in collection]
    # 8, 2, 0 and 2 of 12 pixels: three classes that are there share them
    assert balanced_weights(collection, records, "label", None, 4) == pytest.approx((0.5, 2.0, 1.0, 2.0))
    assert balanced_weights(collection, records, "label", "label", 2) == (1.0, 1.0)
    with pytest.raises(DataError, match="holds the class 3, but the model has classes 0 to 2"):
        balanced_weights(collection, records, "label", None, 3)


def test_features_of_whole_crops_cannot_be_normalised_over_one():
    with pytest.raises(ConfigError, match="batch_size must be >= 2, got 1"):
        check_crops(TrainConfig(steps=1, crop_px=64, batch_size=1), 16, True, pools_globally=True)


def test_images_of_another_pixel_size_are_seen_on_the_grid_of_the_model(make_collection):
    """Twice as fine an image is seen at half its size, wherever it is cut and whether it is kept or not."""
    image = np.repeat(np.repeat(np.arange(24, dtype=np.uint8).reshape(1, 4, 6) * 10, 2, 1), 2, 2)
    labels = (image[0] > 100).astype(np.uint8)
    collection = make_collection("fine", {"a": image}, {"a": labels}, pixel_size_um=0.5)
    view = CropView.of(spec(pixel_size_um=1.0))
    readers = [CropReader(collection, ("a",), view, memory_bytes=n) for n in (10**9, 0)]
    assert readers[0].shape("a") == (4, 6)
    whole = readers[0].read("a", Region((0, 0), (4, 6)))
    np.testing.assert_array_equal(whole.label, labels[::2, ::2])
    assert whole.image[0, 1, 2] == pytest.approx(80 / 255, abs=0.1)
    for reader in readers:
        part = reader.read("a", Region((1, 2), (3, 5)))
        np.testing.assert_array_equal(part.image, whole.image[:, 1:3, 2:5])
        np.testing.assert_array_equal(part.label, whole.label[1:3, 2:5])
    unlabelled = CropReader(collection, ("a",), CropView.of(spec(), labelled=False))
    assert not unlabelled.read("a", Region((0, 0), (8, 12))).label.any()


def test_sizes_of_particles_that_there_are_none_of_are_refused():
    with pytest.raises(ConfigError, match=r"small_particles_px 2\.0 has no effect: add particles"):
        TrainConfig(small_particles_px=2.0)
    assert TrainConfig(small_particles_px=2.0, augment=("particles",)).particles_px == (2.0, 4.0)
