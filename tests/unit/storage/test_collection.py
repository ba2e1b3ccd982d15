from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from raydom.config import from_dict, to_dict
from raydom.errors import ConfigError, DataError
from raydom.images.intensity import image_statistics
from raydom.storage.collection import (
    Collection,
    Image,
    open_collection,
    records_to_table,
    table_to_records,
    write_manifest,
)
from raydom.storage.columns import plain_type
from raydom.storage.pyramids import writable_levels, write_coarser
from raydom.storage.zarr_images import create_image, create_labels, write_region
from raydom.types import ImageRecord, Region

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 21, 13), dtype=np.uint8)


def make_record(image_id: str, **changes: object) -> ImageRecord:
    record = ImageRecord(
        image_id=image_id,
        uri=f"images/{image_id}.zarr",
        axes="cyx",
        shape=PIXELS.shape,
        dtype="uint8",
        pixel_size_um=0.25,
        channels=("red", "green", "blue"),
        domain="hospital",
        split=None,
        group=None,
        labels=("label",),
        statistics=image_statistics(PIXELS),
        source_file="/data/a.png",
        sha256="0" * 64,
        label_kinds=("binary",),
    )
    return dataclasses.replace(record, **changes)


def make_collection(uri: str) -> None:
    """Three images, of which only ``b`` has pixels."""
    at = f"{uri}/images/b.zarr"
    create_image(
        at,
        name="b",
        axes="cyx",
        shape=PIXELS.shape,
        dtype="uint8",
        pixel_size_um=0.25,
        channels=("red", "green", "blue"),
        shard_px=16,
        chunk_px=8,
        num_levels=2,
    )
    for rows in ((0, 16), (16, 21)):
        write_region(at, "0", Region((rows[0], 0), (rows[1], 13)), PIXELS[:, rows[0] : rows[1]])
    write_coarser(writable_levels(at), "mean")
    create_labels(at, "label", shape=(21, 13), dtype="uint8", pixel_size_um=0.25, num_levels=2)
    write_region(at, "labels/label/0", Region.whole((21, 13)), PIXELS[0] % 2)
    write_coarser(writable_levels(at, "labels/label"), "nearest")
    records = [
        make_record("c", domain=None, split="test"),
        make_record("a", group="plate 1"),
        make_record("b", group="plate 2"),
    ]
    write_manifest(uri, records)


def test_records_survive_the_manifest_unchanged(tmp_path: Path) -> None:
    gray = np.linspace(-1, 3, 12).reshape(1, 3, 4)
    records = (
        make_record("a"),
        make_record("b", pixel_size_um=None, labels=(), label_kinds=(), domain=None, group="1"),
        make_record("c", dtype="float64", shape=(1, 3, 4), channels=("gray",), statistics=image_statistics(gray)),
    )
    assert table_to_records(records_to_table(records)) == records
    write_manifest(str(tmp_path), reversed(records))
    assert open_collection(str(tmp_path)).records == records
    assert [path.name for path in tmp_path.iterdir()] == ["images.parquet"]


def test_an_empty_collection_is_a_collection(tmp_path: Path) -> None:
    write_manifest(str(tmp_path), [])
    assert len(open_collection(str(tmp_path))) == 0


@pytest.mark.parametrize("place", ["local", "memory"])
def test_images_are_read_in_regions_levels_and_lazily(place: str, tmp_path: Path) -> None:
    uri = str(tmp_path) if place == "local" else "memory://test-collection"
    make_collection(uri)
    collection = open_collection(uri)
    assert [image.image_id for image in collection] == ["a", "b", "c"]
    image = pickle.loads(pickle.dumps(collection["b"])) if place == "local" else collection["b"]
    assert (image.spatial_shape, image.num_channels, image.num_levels) == ((21, 13), 3, 2)
    np.testing.assert_array_equal(image.numpy(), PIXELS)
    np.testing.assert_array_equal(image.numpy(Region((2, 3), (20, 4))), PIXELS[:, 2:20, 3:4])
    np.testing.assert_array_equal(image.numpy((slice(5, None), slice(-4, -1))), PIXELS[:, 5:, -4:-1])
    np.testing.assert_array_equal(image.dask().compute(), PIXELS)
    assert image.dask().chunks == ((3,), (16, 5), (13,))
    assert image.level_shape(1) == (11, 7)
    assert image.numpy(level=1).shape == (3, 11, 7)
    labels = image.labels()
    assert labels.kind == "binary"
    np.testing.assert_array_equal(labels.numpy((slice(1, 9), slice(2, 3))), PIXELS[0, 1:9, 2:3] % 2)
    np.testing.assert_array_equal(labels.dask(level=1).compute(), (PIXELS[0] % 2)[::2, ::2])


def test_filters_choose_and_unknown_values_are_refused(tmp_path: Path) -> None:
    make_collection(str(tmp_path))
    collection = open_collection(str(tmp_path))
    chosen = collection.filter(domain="hospital", group=["plate 1", "plate 2"])
    assert [image.image_id for image in chosen] == ["a", "b"]
    assert len(chosen.filter(split="test")) == 0
    with pytest.raises(ConfigError, match=r"no image has domain hospitl; there is hospital"):
        collection.filter(domain="hospitl")


def test_columns_of_users_stay_in_the_manifest(tmp_path: Path) -> None:
    uri = str(tmp_path)
    write_manifest(uri, [make_record("a"), make_record("b", extra=(("plate", "7"),)), make_record("c")])
    path = tmp_path / "images.parquet"
    frame = pq.read_table(path).to_pandas()  # pandas drops the metadata of the table
    frame["passage"], frame["fixed"], frame["ratio"] = [3, 4, 5], [True, False, None], [0.5, np.nan, 2.0]
    frame["when"] = np.array(["2024-05-06", "2024-05-07", "NaT"], "datetime64[ns]")
    frame["cells"] = frame["plate"].astype("category")
    frame.iloc[[2, 0, 1]].to_parquet(path)
    written = open_collection(uri)
    assert written["b"].record.extra == (
        ("cells", "7"), ("fixed", False), ("passage", 4), ("plate", "7"), ("ratio", None),
        ("when", "2024-05-07 00:00:00.000000000"),
    )  # fmt: skip
    write_manifest(uri, written.records)
    again = open_collection(uri)
    assert again.records == written.records
    assert again.table.schema.field("passage").type == pa.int64()
    assert from_dict(ImageRecord, json.loads(json.dumps(to_dict(written.records[1])))) == written.records[1]


def test_whole_numbers_of_users_stay_exact_and_what_fits_no_record_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = str(tmp_path)
    write_manifest(uri, [make_record("a"), make_record("b")])
    table = pq.read_table(tmp_path / "images.parquet")
    table = table.append_column("hash", pa.array([2**64 - 2, 2**64 - 1], pa.uint64()))
    table = table.append_column("serial", pa.array([2**60, 2**60 + 1]))
    table = table.append_column("when", pa.array([0, 1], pa.timestamp("s", tz="No/Where")))
    pq.write_table(table, tmp_path / "images.parquet")
    collection = open_collection(uri)
    assert collection["a"].record.extra == (("hash", str(2**64 - 2)), ("serial", 2**60))
    assert "column when (timestamp[ms, tz=No/Where]) is left out" in caplog.text
    assert plain_type(pa.month_day_nano_interval()) is None
    for keep in (f"hash={2**64 - 1}", f"serial={2**60 + 1}"):
        assert [record.image_id for record in collection.filter(keep=keep).records] == ["b"]


def test_columns_that_raydom_needs_itself_or_of_mixed_kinds_are_refused(tmp_path: Path) -> None:
    for name in ("sha256", "height"):
        with pytest.raises(DataError, match=f"cannot have the name {name}"):
            write_manifest(str(tmp_path), [make_record("a", extra=((name, "1"),))])
    with pytest.raises(DataError, match="column x would have numbers and text"):
        write_manifest(str(tmp_path), [make_record("a", extra=(("x", 1.0),)), make_record("b", extra=(("x", "1"),))])


@pytest.mark.parametrize(
    ("keep", "chosen"),
    [
        ("cell=A172", "b"),
        ("cell = A172, BT474", "bc"),
        ("cell!=A172", "ac"),  # an image without a value is not A172
        ("passage>=4", "bc"),
        ("passage<4", ""),
        ("passage=4.0", "b"),
        ("fixed=true", "b"),
        ("well>=9", "bc"),  # numbers written as text are compared as numbers
        ("labels=label", "abc"),
        ("channels!=red", ""),
        ("height>21", "c"),
        (("width<=13", "num_channels=3", "cell!=A172"), "a"),
    ],
)
def test_conditions_choose_images_by_any_column(keep: str | tuple[str, ...], chosen: str) -> None:
    columns: dict[str, dict[str, str | float]] = {
        "a": {},
        "b": {"cell": "A172", "passage": 4, "fixed": True, "well": "9"},
        "c": {"cell": "BT474", "passage": 5, "fixed": False, "well": "10"},
    }
    records = [make_record(name, extra=tuple(sorted(extra.items()))) for name, extra in columns.items()]
    records[2] = dataclasses.replace(records[2], shape=(3, 30, 50))
    collection = Collection("c", records_to_table(records))
    assert "".join(image.image_id for image in collection.filter(keep=keep)) == chosen


@pytest.mark.parametrize(
    ("keep", "told"),
    [
        ("cel=A172", "no column 'cel'; did you mean cell"),
        ("cell=A127", "no image has cell A127; there is A172"),
        ("cell>=3", "compares numbers, and 'A172' is none"),
        ("height>=tall", "compares numbers, and 'tall' is none"),
        ("height", "keep is a condition"),
        ("height>3,4", "keep is a condition"),
        ("mean=3", "no column 'mean'"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(keep: str, told: str) -> None:
    collection = Collection("c", records_to_table([make_record("a", extra=(("cell", "A172"),))]))
    with pytest.raises(ConfigError, match=told):
        collection.filter(keep=keep)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="raydom ingest SOURCE"):
        open_collection(str(tmp_path / "nowhere"))
    make_collection(str(tmp_path))
    collection = open_collection(str(tmp_path))
    with pytest.raises(DataError, match="no image 'bb' among 3; the nearest is b"):
        collection["bb"]
    with pytest.raises(ConfigError, match="has no label 'nuclei'; it has label"):
        collection["b"].labels("nuclei")
    with pytest.raises(ConfigError, match="no level 2; there are levels 0 to 1"):
        collection["b"].numpy(level=2)
    with pytest.raises(ConfigError, match="not inside the image"):
        collection["b"].numpy(Region((0, 0), (22, 13)))
    with pytest.raises(DataError, match="no Zarr group"):
        collection["a"].numpy()


def test_damaged_pixels_are_an_error_that_names_the_image(tmp_path: Path) -> None:
    make_collection(str(tmp_path))
    shard = tmp_path / "images/b.zarr/0/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(DataError, match=r"b\.zarr level 0: pixels .* damaged"):
        open_collection(str(tmp_path))["b"].numpy()


def test_two_rows_with_one_id_and_foreign_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two images have the id a: /data/a\.png and /x"):
        write_manifest(str(tmp_path), [make_record("a"), make_record("a", source_file="/x")])
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "images.parquet")
    with pytest.raises(DataError, match="not a manifest of raydom"):
        open_collection(str(tmp_path))
    (tmp_path / "images.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match="not a readable manifest"):
        open_collection(str(tmp_path))


def make_ome_zarr_04(uri: str, shape: tuple[int, ...], axes: str = "tczyx") -> np.ndarray:
    """An OME-Zarr 0.4 image as other programs write it: Zarr 2, nested chunks, nanometres."""
    pixels = np.random.default_rng(1).integers(0, 4096, shape, dtype=np.uint16)
    group = zarr.open_group(uri, mode="w", zarr_format=2)
    group.create_array("s0", shape=shape, dtype="uint16", chunks=(1,) * (len(shape) - 2) + (8, 8))[:] = pixels
    types = {"t": "time", "c": "channel"}
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [
                {"name": a, "type": types.get(a, "space")} | ({"unit": "nanometer"} if a in "zyx" else {}) for a in axes
            ],
            "datasets": [
                {
                    "path": "s0",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [130.0 if a in "yx" else 1.0 for a in axes]}
                    ],
                }
            ],
        }
    ]
    return pixels


def test_ome_zarr_04_with_single_planes_reads_as_channels_y_x(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.zarr")
    pixels = make_ome_zarr_04(uri, (1, 2, 1, 21, 13))
    image = Image(make_record("a", uri=uri, shape=(2, 21, 13), dtype="uint16"), "/elsewhere")
    np.testing.assert_array_equal(image.numpy((slice(3, 9), slice(None))), pixels[0, :, 0, 3:9])
    np.testing.assert_array_equal(image.dask().compute(), pixels[0, :, 0])
    assert image.level_shape(0) == (21, 13)


def test_a_time_series_is_refused_naming_the_axis(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.zarr")
    make_ome_zarr_04(uri, (2, 3, 7, 5), axes="tcyx")
    with pytest.raises(DataError, match="axis t has 2 entries"):
        Image(make_record("a", uri=uri), "/elsewhere").numpy()
