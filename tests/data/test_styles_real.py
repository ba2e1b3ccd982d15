"""Style methods on real fundus images: CHASE_DB1 made to look like DRIVE.

Real feature weights, where there are some: RAYDOM_WEIGHTS names a folder of .safetensors files.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.filters import gaussian

from raydom.algorithms.arrays import stylize
from raydom.images.intensity import image_statistics
from raydom.networks.features import load_features

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def chase(data_dir: Path) -> np.ndarray:
    return np.asarray(Image.open(data_dir / "retina_chase_db1/images/01L.jpg"))[300:620, 300:580]


@pytest.fixture(scope="module")
def drive(data_dir: Path) -> np.ndarray:
    return tifffile.imread(sorted((data_dir / "retina_drive/images").iterdir())[0])[120:440, 100:420]


def weights(name: str) -> Path:
    folder = Path(os.environ.get("RAYDOM_WEIGHTS", "-"))
    found = sorted(folder.glob(f"{name}*.safetensors"))
    if not found:
        pytest.skip(f"needs weights of {name}: set RAYDOM_WEIGHTS to their folder")
    return found[0]


def distance(image: np.ndarray, style: np.ndarray) -> float:
    """Mean distance of the channels' quantiles, gray values."""
    own, other = (np.array(image_statistics(np.moveaxis(x, -1, 0)).percentiles) for x in (image, style))
    return float(np.abs(own - other).mean())


@pytest.mark.parametrize(("method", "closer"), [("meanstd", 3), ("histogram", 20), ("reinhard", 3)])
def test_intensities_become_those_of_the_style(
    method: str, closer: float, chase: np.ndarray, drive: np.ndarray
) -> None:
    assert distance(stylize(chase, drive, method), drive) < distance(chase, drive) / closer


def test_style_transfer_takes_the_colours_and_keeps_the_vessels(chase: np.ndarray, drive: np.ndarray) -> None:
    options = {"features": "squeezenet1_1", "weights": str(weights("squeezenet1_1")), "steps": 15}
    result = stylize(chase, drive, "nst", **options)
    assert distance(result, drive) < distance(chase, drive) / 3
    vessels, own_vessels = (gaussian(x[..., 1], 2) - gaussian(x[..., 1], 12) for x in (result, chase))
    assert np.corrcoef(vessels.ravel(), own_vessels.ravel())[0, 1] > 0.8


def test_the_weights_of_oxford_are_recognised_under_any_name(tmp_path: Path) -> None:
    copy = tmp_path / "w.safetensors"
    shutil.copy(weights("vgg19"), copy)
    network = load_features("vgg19", str(copy))
    assert network.convention.name == "caffe" and network.layers[-1] == "relu3_4"


def test_trained_filters_see_a_dark_bright_and_real_image_differently(chase: np.ndarray) -> None:
    """A wrong input convention would drown the image in the biases, or saturate."""
    import torch

    network = load_features("squeezenet1_1", str(weights("squeezenet1_1")))
    image = torch.from_numpy(np.moveaxis(chase, -1, 0).astype(np.float32) / 255)[None]
    seen = network(torch.cat([image, torch.zeros_like(image), torch.ones_like(image)]), ["fire2"])["fire2"]
    variation = seen[0].flatten(1).std(dim=1).mean() / seen[0].mean()
    assert float(variation) > 0.2
    assert float((seen[1] - seen[2]).abs().mean() / seen.mean()) > 0.3
