"""Stain normalisation: synthetic tissue of two known stains."""

import numpy as np
import pytest
import torch
from torch import Tensor

from raydom import stylize
from raydom.algorithms.macenko import Stains, macenko, optical_density, stains_of
from raydom.errors import ConfigError, DataError

HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.21, 0.91, 0.35)
OTHER = (0.55, 0.75, 0.37), (0.25, 0.86, 0.45)


def colours(*stains: tuple[float, ...]) -> np.ndarray:
    columns = np.array(stains).T
    return columns / np.linalg.norm(columns, axis=0)


def tissue(
    *stains: tuple[float, ...], strength: tuple[float, float] = (1.5, 1.0), shape: tuple[int, int] = (60, 51)
) -> Tensor:
    """(1, 3, h, w): a quarter of glass, a quarter of each stain alone and a quarter of both, in any amounts."""
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0.4, 1.0, (2, *shape)) * np.reshape(strength, (2, 1, 1))
    rows = np.arange(shape[0])[:, None] % 4
    amounts[0] *= (rows == 1) | (rows == 3)
    amounts[1] *= (rows == 2) | (rows == 3)
    density = np.tensordot(colours(*stains), amounts, 1)
    return torch.from_numpy(((256 * np.exp(-density) - 1) / 255).astype(np.float32))[None]


def angles_deg(found: Stains, true: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip((found.colours * true).sum(axis=0), -1, 1)))


def test_white_has_no_density_and_black_the_most() -> None:
    density = optical_density(torch.tensor([1.0, 0.0, -0.5, 1.5]))
    torch.testing.assert_close(density, torch.tensor([0.0, np.log(256), np.log(256), 0.0], dtype=torch.float32))


@pytest.mark.parametrize("stains", [(HAEMATOXYLIN, EOSIN), (EOSIN, HAEMATOXYLIN), OTHER])
def test_the_stains_of_an_image_are_found(stains: tuple[tuple[float, ...], ...]) -> None:
    found = stains_of(tissue(*stains)[0])
    haematoxylin_first = sorted(stains, key=lambda stain: -colours(stain)[0, 0])
    assert angles_deg(found, colours(*haematoxylin_first)).max() < 0.5
    np.testing.assert_allclose(np.linalg.norm(found.colours, axis=0), 1.0)


def test_the_strength_of_a_stain_does_not_depend_on_the_amount_of_glass() -> None:
    image = tissue(HAEMATOXYLIN, EOSIN)[0]
    more_glass = torch.cat([image, torch.ones(3, 500, image.shape[2])], dim=1)
    np.testing.assert_allclose(stains_of(more_glass).strengths, stains_of(image).strengths)


def test_an_image_normalised_to_itself_is_the_same() -> None:
    image = tissue(HAEMATOXYLIN, EOSIN)
    own = stains_of(image[0])
    torch.testing.assert_close(macenko(image, own, own), image, atol=1e-5, rtol=0)


def test_tissue_gets_the_colours_and_strengths_of_the_style() -> None:
    """The same amounts of other stains, in other strengths, are the style image itself."""
    image, style = tissue(HAEMATOXYLIN, EOSIN), tissue(*OTHER, strength=(0.9, 1.3))
    result = macenko(image, stains_of(image[0]), stains_of(style[0]))
    torch.testing.assert_close(result, style, atol=0.01, rtol=0)
    assert bool((result[:, :, ::4] > 1 - 1e-6).all())  # glass stays white


def test_a_block_comes_out_as_within_its_image() -> None:
    image, style = tissue(HAEMATOXYLIN, EOSIN), tissue(*OTHER)
    known = stains_of(image[0]), stains_of(style[0])
    whole = macenko(image, *known)
    assert torch.equal(macenko(image[:, :, 5:18, 3:14], *known), whole[:, :, 5:18, 3:14])


def test_a_large_image_is_normalised_alike_in_all_its_parts() -> None:
    rgb = (tissue(HAEMATOXYLIN, EOSIN, shape=(16, 16))[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    large, style = np.tile(np.kron(rgb, np.ones((16, 4, 1), np.uint8)), (1, 4, 1)), rgb[:, ::-1] // 2 + 100
    small = stylize(large, style, "macenko", overview_px=64)
    np.testing.assert_array_equal(small[:, :64], small[:, 64:128])
    assert np.abs(small.astype(int) - stylize(large, style, "macenko")).max() <= 12  # stains seen at 1:4


@pytest.mark.parametrize("image", ["content", "style"])
@pytest.mark.parametrize(
    ("pixels", "error", "told"),
    [
        (np.full((1, 20, 20), 0.5), ConfigError, "needs RGB images, of 3 channels; .* has 1"),
        (np.ones((3, 20, 20)), DataError, r"no stained tissue \(0 of 400 pixels\)"),
        (np.zeros((3, 20, 20)), DataError, "mostly dark"),
        (np.linspace(0.2, 0.9, 1200).repeat(3).reshape(20, 60, 3).transpose(2, 0, 1), DataError, "one colour only"),
        (np.full((3, 20, 20), 0.5), DataError, "one colour only"),
    ],
)
def test_what_is_no_stained_tissue_is_refused(image: str, pixels: np.ndarray, error: type, told: str) -> None:
    bad, good = np.moveaxis(pixels, 0, -1).astype(np.float32), tissue(HAEMATOXYLIN, EOSIN)[0].permute(1, 2, 0).numpy()
    if error is ConfigError:
        good = good[..., :1]
    with pytest.raises(error, match=told):
        stylize(*((bad, good) if image == "content" else (good, bad)), "macenko")
