"""Files with a z axis as volumes: one image each, whatever order their planes lie in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from ome_zarr_models.v05.image import Image as OmeImage
from zarr import open_group

from raydom.commands import IngestConfig
from raydom.config import ClusterConfig
from raydom.errors import ConfigError
from raydom.images.intensity import image_statistics
from raydom.ingestion import IngestReport, ingest
from raydom.ingestion.truth import instance_boundaries
from raydom.storage import pictures
from raydom.storage.collection import Image, open_collection
from raydom.storage.whole_images import write_image
from raydom.types import ImageRecord

GENERATOR = np.random.default_rng(0)
STACK = GENERATOR.integers(0, 200, (5, 21, 13), dtype=np.uint8)
OBJECTS = (np.arange(5)[:, None, None] * 90 + GENERATOR.integers(0, 3, STACK.shape)).astype(np.uint32)
"""Numbers up to 362, of which the first plane has none above 2."""


def run(folder: Path, *names: str, **options: Any) -> IngestReport:
    sources = tuple(str(folder / name) for name in names)
    return ingest(IngestConfig(source=sources, out=str(folder / "out"), run=ClusterConfig(workers=1), **options))


def opened(folder: Path, image_id: str) -> Image:
    return open_collection(str(folder / "out"))[image_id]


def save(folder: Path) -> None:
    tifffile.imwrite(folder / "a.tif", STACK, photometric="minisblack")
    with h5py.File(folder / "a_cells.h5", "w") as file:
        file["stack"] = OBJECTS


def test_a_stack_and_its_label_become_one_image(tmp_path: Path) -> None:
    save(tmp_path)
    labels = (f"cells={tmp_path / 'a_cells.h5'}",)
    report = run(tmp_path, "a.tif", labels=labels, volumes=True, plane_distance_um=0.04, pixel_size_um=0.01)
    assert report.ingested == ("a",)
    image = opened(tmp_path, "a")
    np.testing.assert_array_equal(image.numpy(), STACK[None])
    np.testing.assert_array_equal(image.labels("cells").numpy(), OBJECTS)
    assert (image.labels("cells").dtype, image.record.label_kinds) == (np.dtype(np.uint16), ("instance",))
    assert image.statistics == image_statistics(STACK[None])
    assert (image.record.axes, image.plane_distance_um, image.record.group) == ("czyx", 0.04, None)
    metadata = OmeImage.from_zarr(open_group(image.uri, mode="r")).ome_attributes.multiscales[0]
    assert metadata.datasets[0].coordinateTransformations[0].scale == [1.0, 0.04, 0.01, 0.01]

    again = run(tmp_path, "a.tif", labels=labels, volumes=True, plane_distance_um=0.04, pixel_size_um=0.01)
    assert again.skipped == ("a",)
    planes = run(tmp_path, "a.tif", labels=labels)  # which take the place of the volume
    assert planes.ingested == tuple(f"a_z{number:03d}" for number in range(5))
    assert not Path(image.uri).exists()


def test_large_volumes_are_read_in_pieces_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path)
    options: dict[str, Any] = {
        "labels": (f"cells={tmp_path / 'a_cells.h5'}",),
        "volumes": True,
        "ignore_value": ("cells=1",),
        "boundary_from_instances": ("cells=1.5",),
    }
    monkeypatch.setattr(pictures, "LAZY_BYTES", 0)
    assert not run(tmp_path, "a.tif", **options).refused
    image = opened(tmp_path, "a")
    cleared = np.where(OBJECTS == 1, 0, OBJECTS)
    np.testing.assert_array_equal(image.numpy(), STACK[None])
    np.testing.assert_array_equal(image.labels("cells").numpy(), cleared)
    np.testing.assert_array_equal(image.labels("cells-valid").numpy(), OBJECTS != 1)
    found = image.labels("cells-boundary").numpy()
    for plane in range(5):  # the planes around it make no difference
        expected = instance_boundaries(cleared[plane], 1.5, OBJECTS[plane] != 1)
        np.testing.assert_array_equal(found[plane], expected)
    assert image.statistics == image_statistics(STACK[None])


@pytest.mark.parametrize("order", ["TZCYX", "ZTCYX"])
def test_time_points_are_volumes_of_their_own_in_any_order(tmp_path: Path, order: str) -> None:
    series = GENERATOR.integers(0, 4000, (3, 4, 2, 9, 7), dtype=np.uint16)  # tzcyx
    stored = series if order == "TZCYX" else series.swapaxes(0, 1)
    metadata = {
        "axes": order, "Channel": {"Name": ["dna", "actin"]}, "PhysicalSizeX": 500.0, "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm", "PhysicalSizeZ": 2000.0, "PhysicalSizeZUnit": "nm",
    }  # fmt: skip
    tifffile.imwrite(tmp_path / "b.ome.tif", stored, photometric="minisblack", metadata=metadata)
    report = run(tmp_path, "b.ome.tif", volumes=True)
    assert len(report.ingested) == 3
    for time, image_id in enumerate(report.ingested):
        image = opened(tmp_path, image_id)
        assert image_id.endswith(f"_t{time:03d}")
        np.testing.assert_array_equal(image.numpy(), series[time].swapaxes(0, 1))
        assert image.record.channels == ("dna", "actin")
        assert (image.pixel_size_um, image.plane_distance_um) == (0.5, 2.0)
        assert image.record.group == image_id.removesuffix(f"_t{time:03d}")


def test_distances_of_planes_are_those_of_the_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["raw"] = STACK
        file["raw"].attrs["element_size_um"] = (0.3, 0.1, 0.1)
    stated = {"axes": "ZYX", "spacing": 2.5, "unit": "um"}
    tifffile.imwrite(tmp_path / "d.tif", STACK, imagej=True, resolution=(10, 10), metadata=stated)
    tifffile.imwrite(tmp_path / "e.tif", STACK[0])
    report = run(tmp_path, "c.h5", "d.tif", "e.tif", volumes=True)
    assert not report.warnings
    sizes = {
        image.image_id: (image.num_planes, image.plane_distance_um, image.pixel_size_um)
        for image in open_collection(str(tmp_path / "out"))
    }
    assert sizes == {"c": (5, 0.3, 0.1), "d": (5, 2.5, 0.1), "e": (1, None, None)}
    save(tmp_path)
    (told,) = run(tmp_path, "a.tif", volumes=True, pixel_size_um=0.1).warnings
    assert "give --plane-distance (1 images)" in told


def test_a_label_of_other_size_is_refused_naming_both(tmp_path: Path) -> None:
    save(tmp_path)
    tifffile.imwrite(tmp_path / "a_flat.tif", np.ones((21, 13), np.uint8))
    with h5py.File(tmp_path / "a_short.h5", "w") as file:
        file["stack"] = OBJECTS[:4]
    for name, told in (("a_flat.tif", "21 x 13 px (height x width)"), ("a_short.h5", "4 x 21 x 13 px (planes x")):
        (refusal,) = run(tmp_path, "a.tif", labels=(str(tmp_path / name),), volumes=True).refused
        assert told in refusal.error
        assert "5 x 21 x 13 px (planes x height x width)" in refusal.error


def test_volumes_are_listed_in_place_when_asked_for(tmp_path: Path) -> None:
    record = ImageRecord(
        image_id="v", uri="v.zarr", axes="czyx", shape=(1, *STACK.shape), dtype="uint8", pixel_size_um=0.1,
        channels=("gray",), domain=None, split=None, group=None, labels=("cells",), source_file="", sha256="",
        statistics=image_statistics(STACK[None]), extra=(("plane_distance_um", 0.4),),
    )  # fmt: skip
    write_image(str(tmp_path / "v.zarr"), record, STACK[None], {"cells": OBJECTS})
    (refusal,) = run(tmp_path, "v.zarr", index_only=True).refused
    assert "axis z has 5 planes. List it as a volume, by --volumes" in refusal.error
    run(tmp_path, "v.zarr", index_only=True, volumes=True)
    image = opened(tmp_path, "v")
    np.testing.assert_array_equal(image.numpy((slice(3, 9), slice(0, 5))), STACK[None, :, 3:9, :5])
    np.testing.assert_array_equal(image.labels("cells").numpy(), OBJECTS)
    assert (image.plane_distance_um, image.pixel_size_um, image.spatial_shape) == (0.4, 0.1, STACK.shape)
    assert image.statistics == record.statistics
    assert image.record.label_kinds == ("instance",)


def test_planes_that_differ_make_no_volume(tmp_path: Path) -> None:
    colours = np.zeros((3, 256), np.uint16)
    colours[0, 1] = 65535  # palette files are colour where a colour occurs, and gray where none does
    pages = np.zeros((2, 9, 7), np.uint8)
    pages[1, 3, 3] = 1
    tifffile.imwrite(tmp_path / "p.tif", pages, photometric="palette", colormap=colours)
    (refusal,) = run(tmp_path, "p.tif", volumes=True).refused
    assert "plane _z001 is" in refusal.error


def test_a_distance_of_planes_needs_volumes() -> None:
    with pytest.raises(ConfigError, match="--volumes"):
        IngestConfig(source=("a.tif",), out="out", plane_distance_um=1.0)
