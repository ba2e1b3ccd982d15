"""Fixtures shared by all tests: the folder of real images, and one Ray for the whole session."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

torch.set_num_threads(1)


class RayInOneProcess(LoadScopeScheduling):  # type: ignore[misc]
    """Gives all tests of Ray to one process of pytest-xdist: there is one Ray for them, and it has two CPUs."""

    def _split_scope(self, nodeid: str) -> str:
        return "tests/ray" if nodeid.startswith("tests/ray/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> RayInOneProcess:
    return RayInOneProcess(config, log)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real images; tests that need it are skipped without it."""
    root = os.environ.get("RAYDOM_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("needs real images: set RAYDOM_DATA to their folder")
    return Path(root).resolve()


@pytest.fixture(scope="session")
def ray_session():
    """One embedded Ray for all tests: two CPUs, a GPU that is not there, its own folder, ended with the session."""
    import ray

    from raydom.cluster.session import ray_session as start
    from raydom.config import RunConfig

    with tempfile.TemporaryDirectory(prefix="rd-") as folder:
        os.environ.pop("RAY_ADDRESS", None)
        os.environ["PYTHONPATH"] = str(Path(__file__).parent / "ray")  # workers import style methods from there
        with start(RunConfig(quiet=True), num_cpus=2, num_gpus=1, temp_dir=folder):
            yield ray


@pytest.fixture
def make_collection(tmp_path):
    """Writes a collection of given (c, h, w) arrays, or volumes (c, d, h, w), optionally with labels of these names."""
    from raydom.images.intensity import image_statistics
    from raydom.storage import zarr_images
    from raydom.storage.collection import open_collection, write_manifest
    from raydom.storage.pyramids import writable_levels, write_coarser
    from raydom.types import ImageRecord, Region

    def make(name, images, labels=None, **fields):
        uri, records = str(tmp_path / name), []
        for image_id, pixels in images.items():
            group = f"{uri}/images/{image_id}.zarr"
            channels = tuple(f"c{n}" for n in range(len(pixels)))
            shape = pixels.shape[1:]
            zarr_images.create_image(
                group,
                name=image_id,
                axes="cyx" if pixels.ndim == 3 else "czyx",
                shape=pixels.shape,
                dtype=pixels.dtype,
                pixel_size_um=fields.get("pixel_size_um"),
                channels=channels,
                overwrite=True,
            )
            zarr_images.write_region(group, "0", Region.whole(shape[-2:]), pixels)
            write_coarser(writable_levels(group), "mean")
            truth = (labels or {}).get(image_id)
            if truth is not None:
                zarr_images.create_labels(group, "label", shape=shape, dtype=truth.dtype, pixel_size_um=None)
                zarr_images.write_region(group, "labels/label/0", Region.whole(shape[-2:]), truth)
            own = {name: value[image_id] if isinstance(value, dict) else value for name, value in fields.items()}
            record = {"domain": None, "split": None, "group": None, "pixel_size_um": None} | own
            records.append(
                ImageRecord(
                    image_id=image_id,
                    uri=f"images/{image_id}.zarr",
                    axes="cyx" if pixels.ndim == 3 else "czyx",
                    shape=pixels.shape,
                    dtype=str(pixels.dtype),
                    channels=channels,
                    labels=("label",) if truth is not None else (),
                    statistics=image_statistics(pixels),
                    source_file=f"{image_id}.tif",
                    sha256=f"{hash(pixels.tobytes()):x}",
                    **record,
                )
            )
        write_manifest(uri, records)
        return open_collection(uri)

    return make


@pytest.fixture
def make_model(tmp_path):
    """Writes a model run: a small U-Net with random weights whose foreground is about half of random images."""
    from raydom.config import ModelSpec, NetworkConfig
    from raydom.networks.build import build_network
    from raydom.storage.model_run import write_model_run

    def make(name="model", in_channels=1, depth=2, **fields):
        unet = fields.get("network") or NetworkConfig(in_channels=in_channels, base_channels=4, depth=depth)
        network = build_network(unet, seed=3).eval()
        with torch.no_grad():
            probe = network(torch.rand(1, in_channels, 64, 64, generator=torch.Generator().manual_seed(0)))
            last = list(network.parameters())[-1]
            last -= probe.median()
        spec = {
            "network": unet,
            "channels": tuple(f"c{n}" for n in range(in_channels)),
            "low": 0.0,
            "high": 1.0,
            "pixel_size_um": None,
            "total_stride": network.total_stride,
            "receptive_field_px": network.receptive_field_px,
        } | fields
        weights = {key: value.numpy() for key, value in network.state_dict().items()}
        write_model_run(str(tmp_path / name), ModelSpec(**spec), weights, {})
        return str(tmp_path / name)

    return make


@pytest.fixture(scope="session")
def mosaic():
    """Draws neurons, (h, w) or (d, h, w), and their image: bright, with dark membranes, and fainter cracks within."""
    import numpy as np
    from scipy import ndimage
    from scipy.spatial import cKDTree

    def draw(shape, seed=0, spacing=16, planes=0):
        random = np.random.default_rng(seed)
        size = (planes, *shape) if planes else shape
        pixels = np.stack(np.indices(size), axis=-1).reshape(-1, len(size))

        def nearest(points, where):
            return cKDTree(points).query(where)[1]

        def borders(parts):
            return np.any(
                [parts != np.roll(parts, step, axis) for axis in range(len(size)) for step in (1, -1)], axis=0
            )

        coarse, fine = (random.random((int(np.prod(size) / d ** len(size)), len(size))) * size for d in (spacing, 8))
        pieces = nearest(fine, pixels).reshape(size)
        truth = (nearest(coarse, fine) + 1).astype(np.uint32)[pieces]
        image = np.where(borders(truth), 0.1, np.where(borders(pieces), 0.55, 0.8))
        image = ndimage.gaussian_filter(image, 0.6) + random.normal(0, 0.03, size)
        return truth, (255 * np.clip(image, 0, 1)).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def trained_forests():
    """Forests by number of planes, trained once."""
    return {}


@pytest.fixture
def make_forest(tmp_path, make_collection, mosaic, trained_forests):
    """Writes a forest that was trained on a mosaic of its own, for cells of 32 px."""
    from raydom.config import EvidenceConfig, ForestConfig, ForestSpec, NeuronConfig, SuperpixelConfig
    from raydom.neurons.contacts import contacts
    from raydom.neurons.evidence import map_names
    from raydom.neurons.features import edge_features
    from raydom.neurons.forest import EdgeForest, EdgeGraph
    from raydom.neurons.reading import Source
    from raydom.neurons.regions import regions
    from raydom.neurons.superpixels import superpixels
    from raydom.neurons.truth import edge_labels, truth_overlaps
    from raydom.storage.model_run import write_model_run
    from raydom.types import Region

    neurons = NeuronConfig(
        evidence=EvidenceConfig(frangi_sigmas_px=(1.0,), gradient_sigmas_px=(1.0,)),
        superpixels=SuperpixelConfig(cell_px=32, halo_px=16, min_size_px=4),
    )

    def graph_of(image, truth):
        source, region = Source(image, neurons.evidence), Region.whole(image.plane_shape)
        evidence = source.evidence(region)
        labels = superpixels(evidence, neurons.superpixels)
        maps = source.maps(region, evidence)
        touching, found = contacts(labels, maps, region.shape), regions(labels, maps, (0, 0))
        features, names = edge_features(touching, found, map_names(neurons.evidence), 1.0)
        told = edge_labels(touching.u, touching.v, truth_overlaps(labels, truth), "background")
        return EdgeGraph(features, touching.uv, told), names

    def make(planes=0, **fields):
        if planes not in trained_forests:
            truth, pixels = mosaic((64, 64) if planes else (128, 128), seed=7, planes=planes)
            graph, names = graph_of(make_collection("train", {"t": pixels[None]})["t"], truth)
            trained_forests[planes] = EdgeForest.fit([graph], ForestConfig(trees=20), names)
        forest, spec = trained_forests[planes], {"boundary": "frangi", "planes": not planes} | fields
        spec = ForestSpec(neurons=neurons, forest=ForestConfig(trees=20), features=forest.names, **spec)
        write_model_run(str(tmp_path / "forest"), spec, forest.to_arrays(), {})
        return str(tmp_path / "forest")

    return make
