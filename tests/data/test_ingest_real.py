"""Ingestion of real files as other programs wrote them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from ome_zarr_models.v05.image import Image as OmeImage
from PIL import Image

from raydom.commands import IngestConfig
from raydom.errors import DataError
from raydom.ingestion import ingest
from raydom.storage.collection import open_collection
from raydom.storage.readers import read_image, read_pictures

pytestmark = pytest.mark.data


def test_drive_lzw_tiffs_with_gif_labels_and_fields_of_view(data_dir: Path, tmp_path: Path) -> None:
    drive = data_dir / "retina_drive"
    config = IngestConfig(
        source=(str(drive / "images/2[12].tif"),),
        out=str(tmp_path),
        labels=(f"vessels={drive / 'labels'}", f"fov={drive}/fov_masks/*.gif"),
        domain="drive",
    )
    assert ingest(config).ingested == ("21", "22")
    image = open_collection(str(tmp_path))["21"]
    np.testing.assert_array_equal(image.numpy(), np.moveaxis(tifffile.imread(drive / "images/21.tif"), -1, 0))
    truth = np.asarray(Image.open(drive / "labels/21.gif").convert("L")) > 0
    np.testing.assert_array_equal(image.labels("vessels").numpy(), truth)
    assert image.pixel_size_um is None
    assert image.labels("fov").kind == "binary"
    assert 0.6 < image.labels("fov").numpy().mean() < 0.75  # the disc of the fundus camera
    OmeImage.from_zarr(zarr.open_group(image.uri, mode="r"))


def test_chase_jpegs_with_one_bit_labels_of_two_observers(data_dir: Path, tmp_path: Path) -> None:
    chase = data_dir / "retina_chase_db1"
    config = IngestConfig(
        source=(str(chase / "images/01?.jpg"),),
        out=str(tmp_path),
        labels=(str(chase / "labels"), f"second={chase / 'labels_2nd_observer'}"),
        group=r"(\d+)[LR]\.jpg",
    )
    assert ingest(config).ingested == ("01L", "01R")
    left, right = open_collection(str(tmp_path))
    assert left.record.group == right.record.group == "01"
    assert left.record.shape == (3, 960, 999)
    first, second = left.labels().numpy() > 0, left.labels("second").numpy() > 0
    dice = 2 * (first & second).sum() / (first.sum() + second.sum())
    assert 0.7 < dice < 0.85  # the data set's own agreement is 0.763


def test_nd2_planes_channels_and_pixel_size(data_dir: Path, tmp_path: Path) -> None:
    import nd2

    path = data_dir / "reader_samples/cluster.nd2"
    config = IngestConfig(source=(str(path),), out=str(tmp_path))
    assert len(ingest(config).ingested) == 30
    collection = open_collection(str(tmp_path))
    expected = nd2.imread(path)
    for time, depth in ((0, 0), (1, 7), (2, 9)):
        image = collection[f"cluster_t{time:03d}_z{depth:03d}"]
        np.testing.assert_array_equal(image.numpy(), expected[time, depth])
    assert image.pixel_size_um == pytest.approx(0.1678, abs=1e-4)
    assert image.record.channels == ("5-FAM/pH 9.0", "FM 4-64/2% CHAPS")
    assert image.record.group == "cluster"


def test_dsb_rgba_pngs_with_16_bit_instances(data_dir: Path, tmp_path: Path) -> None:
    dsb = data_dir / "dsb2018_nuclei"
    config = IngestConfig(
        source=(str(dsb / "images/brightfield_*.png"),), out=str(tmp_path), labels=(f"nuclei={dsb / 'labels'}",)
    )
    report = ingest(config)
    assert len(report.ingested) == 4
    assert not report.refused
    for image in open_collection(str(tmp_path)):
        assert image.num_channels == 3
        labels = image.labels("nuclei")
        assert labels.kind == "instance"
        np.testing.assert_array_equal(labels.numpy(), np.asarray(Image.open(dsb / f"labels/{image.image_id}.png")))


def test_opposite_polarity_is_inverted(data_dir: Path, tmp_path: Path) -> None:
    em = data_dir / "isbi2012_em"
    source = sorted((em / "images").glob("*.png"))[0]
    config = IngestConfig(
        source=(str(source),), out=str(tmp_path), labels=(f"membrane={em / 'labels'}",), invert_labels=True
    )
    ingest(config)
    (image,) = open_collection(str(tmp_path))
    membrane = np.asarray(Image.open(em / "labels" / source.name)) == 0
    np.testing.assert_array_equal(image.labels("membrane").numpy(), membrane)


def test_tiff_pages_can_be_channels(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "spheroid_confocal/images"
    assert len(ingest(IngestConfig(source=(str(source),), out=str(tmp_path / "a"), pages="channels")).ingested) == 2
    image = open_collection(str(tmp_path / "a"))["ExpL_1"]
    np.testing.assert_array_equal(image.numpy(), tifffile.imread(source / "ExpL_1.tif"))
    assert image.pixel_size_um is None  # the file claims 0.8 px per inch
    assert len(ingest(IngestConfig(source=(str(source),), out=str(tmp_path / "b"))).ingested) == 8


def test_ome_zarr_04_is_indexed_in_place(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "reader_samples/cardiomyocyte_trimmed.zarr"
    assert ingest(IngestConfig(source=(str(source),), out=str(tmp_path), index_only=True)).ingested
    image = open_collection(str(tmp_path))["cardiomyocyte_trimmed"]
    stored = zarr.open_group(source, mode="r")
    np.testing.assert_array_equal(image.numpy(), stored["1"][:, 0])
    np.testing.assert_array_equal(image.dask(level=2).compute(), stored["3"][:, 0])
    labels = image.labels("nuclei")
    assert labels.kind == "instance"
    assert len(np.unique(labels.numpy())) == 3006 + 1
    assert (image.num_levels, image.pixel_size_um, image.record.channels[0]) == (3, 0.65, "DAPI")


def test_every_file_of_the_folder_is_read(data_dir: Path) -> None:
    pytest.importorskip("czifile")
    pytest.importorskip("liffile")
    read = 0
    for path in sorted(data_dir.rglob("*")):
        if path.suffix.lower() in (".tif", ".png", ".gif", ".jpg", ".jpeg", ".nd2", ".czi", ".lif"):
            read += sum(picture.pixels.size > 0 for picture in read_pictures(str(path)))
    assert read > 300


def test_hdf5_volume_with_neurons(data_dir: Path, tmp_path: Path) -> None:
    import h5py

    gala = data_dir / "fibsem_gala"
    for name, file in (("v.h5", "train-image.h5"), ("v-neurons.h5", "train-gt.lzf.h5")):
        (tmp_path / name).symlink_to(gala / file)
    config = IngestConfig(
        source=(f"{tmp_path}/v.h5:/stack",), out=str(tmp_path / "out"), labels=(f"neurons={tmp_path}/v-neurons.h5",)
    )
    assert len(ingest(config).ingested) == 50
    image = open_collection(str(tmp_path / "out"))["v_z031"]
    png = np.asarray(Image.open(gala / "images_png/im31.png"))
    np.testing.assert_array_equal(image.numpy()[0], png)  # what the authors exported of that plane
    with h5py.File(gala / "train-gt.lzf.h5") as file:
        np.testing.assert_array_equal(image.labels("neurons").numpy(), file["stack"][31])


def test_dsb_layout_with_a_mask_a_nucleus(data_dir: Path, tmp_path: Path) -> None:
    layout = data_dir / "dsb2018_nuclei/original_layout"
    config = IngestConfig(source=(f"{layout}/*/images/*.png",), out=str(tmp_path), labels=(f"nuclei={layout}/*/masks",))
    report = ingest(config)
    assert (len(report.ingested), report.refused, report.warnings) == (2, (), ())
    for image in open_collection(str(tmp_path)):
        masks = sorted((layout / image.image_id / "masks").glob("*.png"))
        labels = image.labels("nuclei").numpy()
        assert labels.max() == len(masks)
        for number in (1, len(masks)):
            np.testing.assert_array_equal(labels == number, np.asarray(Image.open(masks[number - 1])) > 0)


def test_neurons_become_membranes_where_two_meet(data_dir: Path, tmp_path: Path) -> None:
    gala = data_dir / "fibsem_gala"
    for name, file in (("v.h5", "train-image.h5"), ("v-neurons.h5", "train-gt.lzf.h5"), ("v-p.h5", "train-p1.lzf.h5")):
        (tmp_path / name).symlink_to(gala / file)
    config = IngestConfig(
        source=(f"{tmp_path}/v.h5",),
        out=str(tmp_path / "out"),
        labels=(f"neurons={tmp_path}/v-neurons.h5",),
        ignore_value=("neurons=0",),
        boundary_from_instances=("neurons=2",),
    )
    assert not ingest(config).refused
    membrane, elsewhere = [], []
    for image, probability in zip(
        open_collection(str(tmp_path / "out")), read_pictures(f"{tmp_path}/v-p.h5"), strict=True
    ):
        boundary = image.labels("neurons-boundary").numpy() > 0
        counted = image.labels("neurons-valid").numpy() > 0
        np.testing.assert_array_equal(counted, image.labels("neurons").numpy() > 0)
        membrane.append(probability.pixels[0][boundary & counted])
        elsewhere.append(probability.pixels[0][~boundary & counted])
    # The authors' classifier, which knows nothing of our boundaries, sees membranes there.
    assert np.concatenate(membrane).mean() > 3 * np.concatenate(elsewhere).mean()


def test_czi_channels_colour_and_pixel_size(data_dir: Path) -> None:
    pytest.importorskip("czifile")
    samples = data_dir / "reader_samples"
    colour = read_image(str(samples / "RGB-8bit.czi"))
    np.testing.assert_array_equal(colour.pixels[1], np.load(samples / "RGB-8bit_Gplane.npy"))
    assert (colour.channels, colour.plane) == (("red", "green", "blue"), "")
    gray = read_image(str(samples / "s_1_t_1_c_1_z_1.czi"))
    assert (gray.pixels.shape, gray.pixels.dtype, gray.channels) == ((1, 325, 475), np.uint16, ("Bright",))
    assert gray.pixel_size_um == pytest.approx(1.08333, abs=1e-5)


def test_lif_planes_are_those_that_leica_exported(data_dir: Path) -> None:
    pytest.importorskip("liffile")
    folder = data_dir / "reader_samples/readlif"
    planes = {picture.plane: picture for picture in read_pictures(str(folder / "testdata_2channel_xz.lif"))}
    assert len(planes) == 20 + 23 + 1
    for plane, channel, name in (("_p000_t000", 0, "xz_c0_t0"), ("_p000_t008", 1, "xz_c1_t8")):
        np.testing.assert_array_equal(planes[plane].pixels[channel], tifffile.imread(folder / f"tiff/{name}.tif"))
    assert planes["_p002"].pixels.shape == (2, 512, 512)
    assert planes["_p000_t000"].pixel_size_um == pytest.approx(0.1403, abs=1e-4)


@pytest.mark.parametrize("name", ["RGB-8bit.czi", "readlif/testdata_2channel_xz.lif"])
def test_no_truncated_vendor_file_passes(data_dir: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip({"czi": "czifile", "lif": "liffile"}[name[-3:]])
    content = (data_dir / "reader_samples" / name).read_bytes()
    cut = tmp_path / f"cut.{name[-3:]}"
    for share in (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999):
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match="cut"):
            list(read_pictures(str(cut)))
