import shutil
from pathlib import Path

import numpy as np
import pytest

from raydom.cluster.domains import FORMER, _overview, find_domains, restore_domains
from raydom.commands import FindDomainsConfig
from raydom.errors import ConfigError, DataError
from raydom.storage.collection import Image, open_collection
from raydom.types import Region

COLOURS = {"red": (200, 20, 20), "gray": (40, 40, 40), "green": (20, 180, 20)}


@pytest.fixture
def painted(make_collection):
    """Three red, two gray and two green images, each a little different, of odd sizes."""
    noise = np.random.default_rng(0)
    images = {
        f"{name}{n}": (np.array(colour)[:, None, None] + noise.integers(-9, 9, (3, 21 + n, 34))).astype(np.uint8)
        for name, colour in COLOURS.items()
        for n in range(3 if name == "red" else 2)
    }
    return lambda **fields: make_collection("c", images, **fields)


def config(collection, **options) -> FindDomainsConfig:
    return FindDomainsConfig(collection=collection.uri, **{"clusters": 3} | options)


def domains(uri: str) -> dict[str, str | None]:
    return {record.image_id: record.domain for record in open_collection(uri).records}


EXPECTED = {"red": "cluster_1", "gray": "cluster_2", "green": "cluster_3"}


@pytest.mark.parametrize("clahe", [False, True])
def test_clusters_become_the_domains_and_nothing_else_changes(painted, clahe):
    collection = painted()
    report = find_domains(config(collection, clahe=clahe))
    found = domains(collection.uri)
    kinds = {(image_id.rstrip("012"), domain) for image_id, domain in found.items()}
    assert kinds == set(EXPECTED.items()) if not clahe else len(kinds) == 3  # it makes the dark gray images bright
    assert report.table["images"].to_pylist() == [3, 2, 2] and not report.unreadable
    for before, after in zip(collection, open_collection(collection.uri), strict=True):
        assert before.record.sha256 == after.record.sha256 and after.record.extra == ()
        np.testing.assert_array_equal(before.numpy(), after.numpy())
    assert (Path(collection.uri) / "domains.png").read_bytes()[:4] == b"\x89PNG"
    assert len(open_collection(collection.uri).filter(domain="cluster_1")) == 3


def test_domains_that_are_there_are_only_replaced_when_asked_and_come_back(painted):
    collection = painted(domain="clinic")
    manifest = (Path(collection.uri) / "images.parquet").read_bytes()
    with pytest.raises(ConfigError, match=r"has domains already \(clinic\). --overwrite replaces them"):
        find_domains(config(collection))
    assert (Path(collection.uri) / "images.parquet").read_bytes() == manifest
    for clusters in (3, 2):  # the second time, clusters are replaced, which nobody needs again
        find_domains(config(collection, clusters=clusters, overwrite=True))
        assert {dict(record.extra)[FORMER] for record in open_collection(collection.uri).records} == {"clinic"}
    assert restore_domains(collection.uri) == 7
    assert open_collection(collection.uri).records == collection.records
    with pytest.raises(ConfigError, match="nothing to undo"):
        restore_domains(collection.uri)


def test_a_new_collection_lists_the_same_images_where_they_are(painted, tmp_path):
    collection = painted(domain="clinic")
    manifest = (Path(collection.uri) / "images.parquet").read_bytes()
    out = str(tmp_path / "new")
    find_domains(config(collection, out=out))
    assert (Path(collection.uri) / "images.parquet").read_bytes() == manifest
    assert sorted(path.name for path in Path(out).iterdir()) == ["domains.parquet", "domains.png", "images.parquet"]
    assert set(domains(out).values()) == set(EXPECTED.values())
    np.testing.assert_array_equal(open_collection(out)["red1"].numpy(), collection["red1"].numpy())
    with pytest.raises(ConfigError, match="is a collection already"):
        find_domains(config(collection, out=out))


def test_an_image_that_cannot_be_read_has_no_domain_and_is_named(painted):
    collection = painted()
    shutil.rmtree(Path(collection.uri) / "images/red0.zarr")
    ((image_id, error),) = find_domains(config(collection)).unreadable
    assert image_id == "red0" and "red0.zarr" in error
    found = domains(collection.uri)
    assert found["red0"] is None and len(set(found.values())) == 4
    with pytest.raises(ConfigError, match=r"7 images cannot make 8 clusters"):
        find_domains(config(collection, clusters=8, overwrite=True))
    with pytest.raises(DataError, match=r"1 of 7 images cannot be read.*red0"):
        find_domains(config(collection, clusters=7, overwrite=True))


class Seen(Image):
    """An image of one level that counts what is read of it."""

    num_levels, num_read = 1, 0

    def __init__(self) -> None:
        """Without a record."""

    def level_shape(self, level: int) -> tuple[int, int]:
        return 9000, 700

    def numpy(self, region: Region, level: int) -> np.ndarray:
        self.num_read += int(np.prod(region.shape))
        return np.zeros((1, *region.shape), np.uint8)


def test_of_a_large_image_without_coarse_levels_only_windows_are_read():
    image = Seen()
    assert _overview(image).shape == (1, 1024, 1024)
    assert image.num_read == 1024**2
