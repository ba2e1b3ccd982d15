from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

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
    folder: Path, images: dict[str, dict[str, np.ndarray]], domains: dict[str, str] | None = None
) -> Collection:
    """A collection with the given labels of each image; pixels do not matter."""
    records = []
    for image_id, labels in images.items():
        uri = str(folder / image_id)
        shape = next(iter(labels.values())).shape if labels else TRUTH.shape
        create_image(
            uri, name=image_id, axes="cyx", shape=(1, *shape), dtype="uint8", pixel_size_um=None, channels=("gray",)
        )
        for name, values in labels.items():
            create_labels(uri, name, shape=shape, dtype=values.dtype, pixel_size_um=None)
            write_region(uri, f"labels/{name}/0", Region.whole(shape), values)
        records.append(
            ImageRecord(
                image_id=image_id,
                uri=image_id,
                axes="cyx",
                shape=(1, *shape),
                dtype="uint8",
                pixel_size_um=None,
                channels=("gray",),
                domain=(domains or {}).get(image_id),
                split=None,
                group=None,
                labels=tuple(labels),
                statistics=image_statistics(np.zeros((1, *shape), np.uint8)),
                source_file=image_id,
                sha256="",
                label_kinds=("instance",) * len(labels),
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
        ({"by": "plate"}, "no column 'plate'; did you mean split"),
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
