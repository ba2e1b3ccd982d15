"""Every method on images that nobody would choose: a clear error or a finite result, never NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from raydom import methods, stylize
from raydom.algorithms.style_interface import StyleInput
from raydom.algorithms.styles import get_method, style_config
from raydom.config import TRAINED
from raydom.errors import ConfigError, DataError
from raydom.images.intensity import image_statistics

SMALL: dict[str, dict[str, Any]] = {
    "nst": {"features": "raydom", "steps": 2},
    "strotss": {"features": "raydom", "steps": 2, "samples": 16, "style_samples": 16},
    "analogy": {"features": "raydom", "patchmatch_iterations": 1, "deconvolution_iterations": 1},
}
METHODS = [method for method in methods() if method != "none" and method not in TRAINED]
SIDE = 24


def picture(height: int = SIDE, width: int = SIDE - 3) -> np.ndarray:
    """Pink and violet spots on white, as every method takes it: float32, so that NaN would show."""
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0, 1, (height, width, 2)) * (rng.random((height, width, 2)) < 0.6)
    return np.exp(-amounts @ np.array([[0.65, 0.70, 0.29], [0.3, 0.91, 0.35]])).astype(np.float32)


def result_or_reason(image: np.ndarray, style: np.ndarray, method: str, **options: Any) -> np.ndarray | str:
    """A result that is known to be an image like the first, or the text of an error that is ours."""
    try:
        result = stylize(image, style, method, **SMALL.get(method, {}), **options)
    except (ConfigError, DataError) as error:
        return str(error)
    assert result.shape == image.shape and result.dtype == image.dtype
    assert np.isfinite(result).all()
    return result


ODD_IMAGES = {
    "black": np.zeros((SIDE, SIDE, 3), np.float32),
    "white": np.ones((SIDE, SIDE, 3), np.float32),
    "gray": np.full((SIDE, SIDE, 3), 0.3, np.float32),
    "far off": np.full((SIDE, SIDE, 3), -1e6, np.float32),
    "one pixel": picture(1, 1),
    "one row": picture(1, SIDE),
    "smaller than features need": picture(3, 2),
    "one bright pixel": np.eye(SIDE * SIDE, 1, -300, np.float32).reshape(SIDE, SIDE, 1).repeat(3, axis=2),
    "one channel alone": picture() * np.float32([1, 0, 0]),
    "tiny numbers": picture() * np.float32(1e-30),
    "huge numbers": picture() * np.float32(1e30),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("odd", ODD_IMAGES)
def test_odd_contents_and_styles_have_a_finite_result_or_a_reason(method: str, odd: str) -> None:
    usual, image = picture(), ODD_IMAGES[odd]
    for images in ((image, usual), (usual, image)):
        outcome = result_or_reason(*images, method)
        assert not isinstance(outcome, str) or method == "macenko"  # which needs stained tissue


@pytest.mark.parametrize("method", METHODS)
def test_bool_images_stay_bool(method: str) -> None:
    spots = picture() < 0.7
    outcome = result_or_reason(spots, spots[::-1], method)
    assert not isinstance(outcome, str) or method == "macenko"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(method: str, bad: float) -> None:
    spoilt = picture()
    spoilt[3, 4, 1] = bad
    for images in ((spoilt, picture()), (picture(), spoilt)):
        assert "NaN or infinity in 1 values" in str(result_or_reason(*images, method))


@pytest.mark.parametrize("method", METHODS)
def test_a_style_with_other_channels_is_refused(method: str) -> None:
    image = picture()
    for style in (image[..., 0], image[..., :2], np.concatenate([image, image], axis=2)):
        assert "channels" in str(result_or_reason(image, style, method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_empty_block_of_an_image_stays_finite(method: str, value: float) -> None:
    image = np.ascontiguousarray(picture().transpose(2, 0, 1))
    statistics = image_statistics(image)
    style = StyleInput(torch.from_numpy(image)[None], statistics)
    prepared = get_method(method).prepare(style, style_config(method, SMALL.get(method, {})))
    block = StyleInput(torch.full((1, 3, 20, 20), value), statistics)
    try:
        result = prepared(block, torch.Generator().manual_seed(0))
    except DataError as error:
        assert method == "macenko" and ("dark" in str(error) or "no stained tissue" in str(error))
        return
    assert result.shape == block.pixels.shape and bool(torch.isfinite(result).all())
