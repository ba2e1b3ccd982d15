from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raydom.errors import ConfigError, DataError
from raydom.storage import packing
from raydom.storage.collection import Collection, open_collection
from raydom.storage.packed import PackedLevels, is_packed
from raydom.storage.packing import pack
from raydom.storage.pyramids import write_levels
from raydom.storage.zarr_images import create_labels
from raydom.types import Region

GENERATOR = np.random.default_rng(0)
GRAY = {name: GENERATOR.integers(0, 4096, (1, 21, 13), dtype=np.uint16) for name in "abcd"}
WIDE = GENERATOR.integers(0, 4096, (1, 9, 40), dtype=np.uint16)
LABELS = {name: GENERATOR.integers(0, 300, (21, 13), dtype=np.uint16) for name in "ab"}

Make = Callable[..., Collection]


def test_a_packed_collection_is_the_collection_that_was_packed(tmp_path: Path, make_collection: Make) -> None:
    collection = make_collection("c", {**GRAY, "wide": WIDE}, LABELS, domain="lab", extra=(("cell", "A172"),))
    report = pack(collection, str(tmp_path / "p"))
    assert (report.num_images, report.num_rows, report.num_shards) == (5, 5, 3)  # with labels, without, and wide
    packed = open_collection(str(tmp_path / "p"))
    for one, other in zip(collection, pickle.loads(pickle.dumps(list(packed))), strict=True):
        assert is_packed(other.uri) and other.num_levels == 1
        np.testing.assert_array_equal(other.numpy(), one.numpy())
        np.testing.assert_array_equal(other.dask().compute(), one.numpy())
        np.testing.assert_array_equal(other.numpy((slice(3, -1), slice(2, 5))), one.numpy((slice(3, -1), slice(2, 5))))
        assert other.level_shape() == one.spatial_shape
        for name in one.record.labels:
            assert (other.labels(name).dtype, other.labels(name).spatial_shape) == (np.uint16, (21, 13))
            np.testing.assert_array_equal(other.labels(name).numpy(), one.labels(name).numpy())
            np.testing.assert_array_equal(other.labels(name).dask().compute(), one.labels(name).numpy())
        for fact in ("statistics", "sha256", "domain", "extra", "dtype", "labels", "label_kinds", "channels"):
            assert getattr(other.record, fact) == getattr(one.record, fact)
    with pytest.raises(ConfigError, match="level 0 only"):
        packed["a"].numpy(level=1)
    with pytest.raises(ConfigError, match="not inside the image"):
        packed["a"].numpy(Region((0, 0), (22, 13)))


def test_anybody_reads_a_shard_as_arrow_tensors(tmp_path: Path, make_collection: Make) -> None:
    pack(make_collection("c", GRAY, dict.fromkeys(GRAY, LABELS["a"])), str(tmp_path / "p"))
    (shard,) = (tmp_path / "p/shards").iterdir()
    table = pq.read_table(shard)
    assert isinstance(table.schema.field("pixels").type, pa.FixedShapeTensorType)
    assert table.schema.field("labels/label").type.dim_names == ["y", "x"]
    np.testing.assert_array_equal(table["pixels"].combine_chunks().to_numpy_ndarray(), np.stack(list(GRAY.values())))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint32", "uint64", "float16", "float32", "float64"])
def test_every_dtype_comes_back(dtype: str, tmp_path: Path, make_collection: Make) -> None:
    pixels = (GENERATOR.random((2, 5, 3)) * 2**10 - (dtype[0] in "if") * 2**9).astype(dtype)
    pixels = pixels > 500 if dtype == "bool" else pixels
    pack(make_collection("c", {"a": pixels}), str(tmp_path / "p"))
    image = open_collection(str(tmp_path / "p"))["a"]
    assert image.numpy().dtype == dtype
    np.testing.assert_array_equal(image.numpy(), pixels)


def test_crops_of_full_size_cover_every_pixel_and_keep_what_is_known_of_the_image(
    tmp_path: Path, make_collection: Make, caplog: pytest.LogCaptureFixture
) -> None:
    collection = make_collection("c", {"a": GRAY["a"], "wide": WIDE}, LABELS)
    report = pack(collection, str(tmp_path / "p"), crop_px=10)
    assert "1 images are smaller than crops of 10 px" in caplog.text
    packed = open_collection(str(tmp_path / "p"))
    assert [image.image_id for image in packed.filter(group="a")] == [
        f"a_y{top:05d}_x{left:05d}" for top in (0, 10, 11) for left in (0, 3)
    ]
    assert (report.num_rows, report.num_small, len(packed)) == (10, 1, 10)
    seen = {name: np.zeros(collection[name].spatial_shape, bool) for name in ("a", "wide")}
    for crop in packed:
        source = collection[str(crop.record.group)]
        top, left = (int(part[1:]) for part in crop.image_id.split("_")[1:])
        place = (slice(top, top + crop.spatial_shape[0]), slice(left, left + crop.spatial_shape[1]))
        assert crop.spatial_shape == (min(10, source.spatial_shape[0]), 10)
        np.testing.assert_array_equal(crop.numpy(), source.numpy(place))
        for name in crop.record.labels:
            np.testing.assert_array_equal(crop.labels(name).numpy(), source.labels(name).numpy(place))
        assert crop.statistics == source.statistics
        seen[source.image_id][place] = True
    assert all(mask.all() for mask in seen.values())
    assert len({image.record.sha256 for image in packed}) == len(packed)


def shard_of_many(tmp_path: Path, make_collection: Make, monkeypatch: pytest.MonkeyPatch) -> tuple[Collection, Path]:
    """Four images, two in a row group."""
    monkeypatch.setattr("raydom.storage.packed.ROW_GROUP_BYTES", 2 * GRAY["a"].nbytes)
    pack(make_collection("c", GRAY), str(tmp_path / "p"))
    (shard,) = (tmp_path / "p/shards").iterdir()
    assert pq.ParquetFile(shard).num_row_groups == 2
    return open_collection(str(tmp_path / "p")), shard


def test_an_image_is_read_without_the_rest_of_its_shard(
    tmp_path: Path, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, shard = shard_of_many(tmp_path, make_collection, monkeypatch)
    column = pq.ParquetFile(shard).metadata.row_group(1).column(1)
    content = bytearray(shard.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle] ^= 0xFF  # of images c and d
    shard.write_bytes(content)
    np.testing.assert_array_equal(packed["b"].numpy(), GRAY["b"])
    with pytest.raises(DataError, match=rf"{shard.name}: this shard is damaged"):
        packed["c"].numpy()


@pytest.mark.parametrize(("fault", "told"), [("cut", "damaged"), ("empty", "damaged"), ("gone", "missing")])
def test_a_shard_that_is_damaged_or_missing_is_named(
    fault: str, told: str, tmp_path: Path, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, shard = shard_of_many(tmp_path, make_collection, monkeypatch)
    content = shard.read_bytes()
    shard.unlink() if fault == "gone" else shard.write_bytes(content[:-100] if fault == "cut" else b"")
    with pytest.raises(DataError, match=rf"{shard.name}: this shard is {told}"):
        packed["a"].numpy()
    shard.write_bytes(content)
    with pytest.raises(DataError, match="the shard has 4 rows"):
        PackedLevels(f"{shard}#4").read(None, 0)
    with pytest.raises(DataError, match="no column labels/x; the shard has image_id, pixels"):
        PackedLevels(f"{shard}#0", "labels/x").read(None, 0)


def test_shards_end_at_their_size_and_objects_stay_described(
    tmp_path: Path, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection("memory", GRAY, LABELS)
    cells = np.zeros((21, 13), np.uint8)
    cells[2, 3], cells[20, 12] = 1, 2
    known: list[dict[str, Any]] = [{"label-value": 1, "category": "x"}, {"label-value": 2, "category": "y"}]
    levels = create_labels(
        collection["a"].uri, "label", shape=(21, 13), dtype="uint8", pixel_size_um=None, properties=known
    )
    write_levels(levels, cells)
    monkeypatch.setattr(packing, "SHARD_BYTES", 3 * 13 * 13 * 2)
    report = pack(collection, "memory://packed", crop_px=13)
    packed = open_collection("memory://packed")
    assert (report.num_rows, report.num_shards) == (8, 5)  # a and its uint8 labels in one, b in two, the others in two
    assert packed["a_y00000_x00000"].labels().properties() == known[:1]
    assert packed["a_y00008_x00000"].labels().properties() == known[1:]
    assert packed["b_y00000_x00000"].labels().properties() == []
    np.testing.assert_array_equal(packed["d_y00008_x00000"].numpy(), GRAY["d"][:, 8:])


def test_many_sizes_of_images_are_told_to_make_many_files(
    tmp_path: Path, make_collection: Make, caplog: pytest.LogCaptureFixture
) -> None:
    collection = make_collection("c", {f"i{n}": np.zeros((1, 8 + n, 9), np.uint8) for n in range(11)})
    assert pack(collection, str(tmp_path / "whole")).num_shards == 11
    assert "11 files or more for 11 images" in caplog.text and "--crop PX, with squares that fit" in caplog.text
    caplog.clear()
    assert pack(collection, str(tmp_path / "crops"), crop_px=8).num_shards == 1
    assert caplog.text == ""


def test_what_cannot_be_packed_is_refused(
    tmp_path: Path, make_collection: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection("c", {"a": GRAY["a"], "a_y00000_x00000": GRAY["b"]})
    (tmp_path / "p/shards").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"p is not empty \(shards\): .* remove the folder"):
        pack(collection, str(tmp_path / "p"))
    monkeypatch.setattr(packing, "MAX_ROW_BYTES", 500)
    with pytest.raises(ConfigError, match=r"a would be a row of .* Cut it: --crop"):
        pack(collection, str(tmp_path / "q"))
    assert not (tmp_path / "q").exists()
    with pytest.raises(ConfigError, match="no image is chosen"):
        pack(collection.filter(keep="height>99"), str(tmp_path / "q"))


def test_only_a_row_of_a_shard_is_packed() -> None:
    assert is_packed("s3://b/p/shards/part-00000.parquet#12")
    assert not is_packed("/data/plate#3/images/a.zarr")
    assert not is_packed("/data/x.parquet#3/images/a.zarr")
