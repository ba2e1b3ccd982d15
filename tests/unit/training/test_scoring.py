from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import variation_of_information

from raydom.errors import ConfigError
from raydom.images.intensity import image_statistics
from raydom.storage.collection import Collection, open_collection, write_manifest
from raydom.storage.zarr_images import create_image, create_labels, write_region
from raydom.training import scoring
from raydom.training.scoring import evaluate
from raydom.types import ImageRecord, Region

TRUTH = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 2]], np.uint8)
FOUND = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1]], np.uint8)
EMPTY = np.zeros_like(TRUTH)
LEFT = np.array([[1, 1, 1, 0, 0]] * 3, np.uint8)


def collection(
    folder: Path,
    images: dict[str, dict[str, np.ndarray]],
    domains: dict[str, str] | None = None,
    *,
    kind: str = "instance",
    groups: dict[str, str] | None = None,
) -> Collection:
    """A collection with the given labels of each image, with a column plate (0 or 1); pixels do not matter."""
    records = []
    for image_id, labels in images.items():
        uri = str(folder / image_id)
        shape = next(iter(labels.values())).shape if labels else TRUTH.shape
        axes = "cyx" if len(shape) == 2 else "czyx"
        create_image(
            uri, name=image_id, axes=axes, shape=(1, *shape), dtype="uint8", pixel_size_um=None, channels=("gray",)
        )
        for name, values in labels.items():
            create_labels(uri, name, shape=shape, dtype=values.dtype, pixel_size_um=None)
            write_region(uri, f"labels/{name}/0", Region.whole(shape[-2:]), values)
        records.append(
            ImageRecord(
                image_id=image_id,
                uri=image_id,
                axes=axes,
                shape=(1, *shape),
                dtype="uint8",
                pixel_size_um=None,
                channels=("gray",),
                domain=(domains or {}).get(image_id),
                split=None,
                group=(groups or {}).get(image_id),
                labels=tuple(labels),
                statistics=image_statistics(np.zeros((1, *shape), np.uint8)),
                source_file=image_id,
                sha256="",
                label_kinds=(kind,) * len(labels),
                extra=(("plate", ord(image_id[0]) % 2),),
            )
        )
    write_manifest(str(folder), records)
    return open_collection(str(folder))


@pytest.fixture
def truth(tmp_path: Path) -> Collection:
    images = {
        "a": {"label": TRUTH, "field": LEFT},
        "b": {"label": EMPTY, "field": LEFT},
        "c": {"label": TRUTH, "field": LEFT},
    }
    return collection(tmp_path / "truth", images, {"a": "lab 1", "b": "lab 2", "c": "lab 1"})


@pytest.fixture
def prediction(tmp_path: Path) -> Collection:
    return collection(tmp_path / "found", {"a": {"label": FOUND}, "b": {"label": EMPTY}, "c": {"label": EMPTY}})


def rows(table, scope: str) -> list[dict]:
    return [row for row in table.to_pylist() if row["scope"] == scope]


def test_pooled_scores_are_those_of_the_summed_counts(prediction: Collection, truth: Collection) -> None:
    (pooled,) = rows(evaluate(prediction, truth), "pooled")
    # a: 3 hits, 1 false, 2 missed, 9 neither; b: nothing in either; c: all 5 missed.
    assert [pooled[name] for name in ("tp", "fp", "fn", "tn")] == [3, 1, 7, 34]
    assert [pooled[name] for name in ("f1", "iou", "dice", "precision", "recall")] == pytest.approx(
        [6 / 14, 3 / 11, 6 / 14, 3 / 4, 3 / 10]
    )


def test_each_image_and_their_mean_are_scored(prediction: Collection, truth: Collection) -> None:
    table = evaluate(prediction, truth)
    assert [(row["image_id"], row["domain"], row["f1"]) for row in rows(table, "image")] == [
        ("a", "lab 1", pytest.approx(6 / 9)),
        ("b", "lab 2", 1.0),
        ("c", "lab 1", 0.0),
    ]
    (mean,) = rows(table, "mean")
    assert (mean["f1"], mean["tp"], mean["num_images"]) == (pytest.approx((6 / 9 + 1 + 0) / 3), None, 3)


def test_each_domain_pools_its_own_images(prediction: Collection, truth: Collection) -> None:
    domains = rows(evaluate(prediction, truth, by="domain"), "domain")
    assert [(row["domain"], row["tp"], row["fn"], row["num_images"]) for row in domains] == [
        ("lab 1", 3, 7, 2),
        ("lab 2", 0, 0, 1),
    ]


def test_pixels_outside_the_mask_are_not_scored(prediction: Collection, truth: Collection) -> None:
    (row, *_) = rows(evaluate(prediction, truth, mask="field"), "image")
    assert [row[name] for name in ("tp", "fp", "fn", "tn")] == [2, 1, 2, 4]


def test_the_scores_do_not_depend_on_the_blocks_read(
    prediction: Collection, truth: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(prediction, truth, mask="field")
    monkeypatch.setattr(scoring, "BLOCK_PX", 2)
    assert evaluate(prediction, truth, mask="field").equals(whole)


def test_missing_predictions_are_counted_and_named(
    tmp_path: Path, truth: Collection, caplog: pytest.LogCaptureFixture
) -> None:
    fewer = collection(tmp_path / "fewer", {"a": {"label": FOUND}, "x": {"label": FOUND}})
    with caplog.at_level(logging.WARNING):
        table = evaluate(fewer, truth, by="domain")
    assert [(row["num_images"], row["num_missing"]) for row in rows(table, "pooled")] == [(1, 2)]
    assert [(row["domain"], row["num_missing"]) for row in rows(table, "domain")] == [("lab 1", 1)]
    assert "2 images of" in caplog.text and ": b, c" in caplog.text
    assert "1 images are in" in caplog.text and ": x" in caplog.text


def test_a_prediction_may_have_a_label_of_another_name(tmp_path: Path, truth: Collection) -> None:
    named = collection(tmp_path / "named", {"a": {"vessels": FOUND}})
    assert rows(evaluate(named, truth), "pooled")[0]["tp"] == 3
    with pytest.raises(ConfigError, match=r"no label 'nuclei' for a; there is vessels"):
        evaluate(named, truth, prediction_label="nuclei")


def test_collections_without_a_common_image_are_refused_naming_some(tmp_path: Path, truth: Collection) -> None:
    other = collection(tmp_path / "other", {f"x{n}": {"label": EMPTY} for n in range(7)})
    with pytest.raises(ConfigError, match=r"x0, x1, x2, x3, x4 and 2 more against a, b, c"):
        evaluate(other, truth)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"label": "nuclei"}, "no label 'nuclei' for a, b, c; there is field, label"),
        ({"mask": "fov"}, "no label 'fov' for a, b, c; there is field, label"),
        ({"by": "plat"}, "no column 'plat'; did you mean plate"),
        ({"by": "image_id"}, "by cannot be image_id"),
        ({"kind": "class"}, "binary, instance, semantic; got 'class'"),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(
    options: dict[str, str], told: str, prediction: Collection, truth: Collection
) -> None:
    with pytest.raises(ConfigError, match=told):
        evaluate(prediction, truth, **options)


def test_another_shape_is_refused_with_both(tmp_path: Path, truth: Collection) -> None:
    turned = collection(tmp_path / "turned", {"a": {"label": FOUND.T.copy()}})
    with pytest.raises(ConfigError, match=r"a: the prediction has \(5, 3\) px and the truth \(3, 5\) px"):
        evaluate(turned, truth)


def test_instances_are_scored_as_objects_and_partitions_too(prediction: Collection, truth: Collection) -> None:
    table = evaluate(prediction, truth, bootstrap=0)
    a, b, c = rows(table, "image")
    # a: of two objects one is found exactly, but as part of what the other image numbers alike: 1 of 5 px.
    assert (a["label_kind"], a["num_true"], a["num_predicted"], a["ap_50"], a["pq"]) == ("instance", 2, 1, 0.0, 0.0)
    assert (b["dsb2018"], b["rand_error"], c["dsb2018"], c["vi_split"]) == (1.0, None, 0.0, 0.0)
    (mean,), (pooled,) = rows(table, "mean"), rows(table, "pooled")
    assert (mean["dsb2018"], pooled["dsb2018"]) == (pytest.approx(1 / 3), 0.0)
    assert mean["vi_merge"] == pytest.approx((a["vi_merge"] + c["vi_merge"]) / 2)  # b has nothing to merge
    assert pooled["num_true"] == 4 and pooled["vi_merge"] == pytest.approx(mean["vi_merge"])  # of as many pixels each
    assert not [name for name in table.column_names if name.endswith("_low")]


@pytest.mark.parametrize("binary", ["truth", "prediction"])
def test_objects_against_a_mask_are_scored_as_pixels_with_a_warning(
    tmp_path: Path, binary: str, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = dict.fromkeys(("truth", "prediction"), "instance") | {binary: "binary"}
    true = collection(tmp_path / "t", {"a": {"label": TRUTH}}, kind=kinds["truth"])
    found = collection(tmp_path / "p", {"a": {"label": FOUND}}, kind=kinds["prediction"])
    table = evaluate(found, true)
    assert "ap_50" not in table.column_names and f"the {binary} is binary: only pixels are scored" in caplog.text
    assert ("--instances.components" in caplog.text) is (binary == "prediction")
    assert "ap_50" in evaluate(found, true, kind="instance").column_names


def test_classes_are_scored_each_and_as_their_mean(tmp_path: Path) -> None:
    true = collection(tmp_path / "t", {"a": {"label": TRUTH}, "b": {"label": EMPTY}})
    found = collection(tmp_path / "p", {"a": {"label": FOUND}, "b": {"label": EMPTY + 3}}, kind="semantic")
    table = evaluate(found, true)
    a, b = rows(table, "image")
    assert (a["dice_class_1"], a["dice_class_2"], a["dice_class_3"]) == (2 * 2 / (4 + 4), 0.0, None)
    assert (a["mean_dice"], b["mean_dice"], a["mean_iou"]) == (0.25, 0.0, pytest.approx((2 / 6 + 0) / 2))
    assert rows(table, "pooled")[0]["mean_dice"] == pytest.approx(0.5 / 3)
    assert rows(table, "pooled")[0]["class_3_fp"] == 15


def test_too_many_classes_are_taken_for_objects(tmp_path: Path) -> None:
    numbers = np.arange(300, dtype=np.uint16)[None]
    many = collection(tmp_path / "t", {"a": {"label": numbers}})
    with pytest.raises(ConfigError, match="a: there are 299 values up to 299, which is too many for classes"):
        evaluate(many, many, kind="semantic")


def test_any_column_groups_the_images_and_each_value_has_its_mean(prediction: Collection, truth: Collection) -> None:
    table = evaluate(prediction, truth, by="plate")
    assert [(row["plate"], row["tp"], row["num_images"]) for row in rows(table, "plate")] == [("0", 0, 1), ("1", 3, 2)]
    assert [row["f1"] for row in rows(table, "plate mean")] == [1.0, pytest.approx((6 / 9 + 0) / 2)]
    assert [row["plate"] for row in rows(table, "image")] == ["1", "0", "1"]


def test_intervals_hold_the_score_are_repeatable_and_need_two_images(prediction: Collection, truth: Collection) -> None:
    table = evaluate(prediction, truth, by="domain", bootstrap=200)
    for scope in ("pooled", "mean"):
        (row,) = rows(table, scope)
        assert 0.0 == row["f1_low"] <= row["f1"] <= row["f1_high"] == 1.0
    assert {row["f1_low"] for row in rows(table, "image")} == {None}
    assert [row["f1_low"] is None for row in rows(table, "domain")] == [False, True]
    assert evaluate(prediction, truth, by="domain", bootstrap=200).equals(table)
    assert not evaluate(prediction, truth, by="domain", bootstrap=200, seed=1).equals(table)


def test_the_slices_of_a_stack_are_drawn_together(tmp_path: Path, prediction: Collection) -> None:
    images = {image_id: {"label": TRUTH} for image_id in "abc"}
    one_stack = collection(tmp_path / "one", images, groups=dict.fromkeys("abc", "stack"))
    assert rows(evaluate(prediction, one_stack), "pooled")[0]["f1_low"] is None
    two = collection(tmp_path / "two", images, groups=dict.fromkeys("ab", "stack"))
    # Either the stack twice, c twice, or each once: c has nothing found.
    (row,) = rows(evaluate(prediction, two), "pooled")
    assert (row["f1_low"], row["f1_high"]) == (0.0, pytest.approx(6 / 14))


def test_a_volume_is_scored_as_a_whole_in_regions_through_all_planes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(0, 5, (6, 9, 7)).astype(np.uint8)
    found = np.where(generator.random(true.shape) < 0.8, true, 3).astype(np.uint8)
    monkeypatch.setattr(scoring, "BLOCK_PX", 8)
    monkeypatch.setattr(scoring, "SMALLEST_BLOCK_PX", 2)
    volumes = [collection(tmp_path / name, {"v": {"label": one}}) for name, one in (("t", true), ("f", found))]
    flat = [
        collection(tmp_path / f"{name}2", {"v": {"label": one.reshape(-1, 7)}})
        for name, one in (("t", true), ("f", found))
    ]
    for zero in ("boundary", "background"):
        table = evaluate(volumes[1], volumes[0], zero=zero)
        assert table.equals(evaluate(flat[1], flat[0], zero=zero))  # an object goes on in the next plane
        (row,) = rows(table, "image")
        ignored = (0,) if zero == "boundary" else ()
        expected = variation_of_information(true, found, ignore_labels=ignored)
        assert (row["vi_split"], row["vi_merge"]) == pytest.approx(tuple(expected))
    with pytest.raises(ConfigError, match=r"the prediction has \(54, 7\) px and the truth \(6, 9, 7\)"):
        evaluate(flat[1], volumes[0])


def test_what_zero_means_is_for_objects_only(prediction: Collection, truth: Collection) -> None:
    with pytest.raises(ConfigError, match="scored as binary labels"):
        evaluate(prediction, truth, kind="binary", zero="background")
    with pytest.raises(ConfigError, match="boundary or background"):
        evaluate(prediction, truth, zero="ignored")
    (left_out,) = rows(evaluate(prediction, truth), "pooled")
    (counted,) = rows(evaluate(prediction, truth, zero="background"), "pooled")
    assert counted["partition_px"] == 45 > left_out["partition_px"]
    assert counted["pq"] == left_out["pq"]
