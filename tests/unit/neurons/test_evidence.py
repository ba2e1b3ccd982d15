from __future__ import annotations

import numpy as np
import pytest
from skimage.filters import frangi

from raydom.config.neurons import EvidenceConfig
from raydom.errors import DataError
from raydom.neurons.evidence import context_px, feature_maps, frangi_boundary, map_names

SMALL = EvidenceConfig(frangi_sigmas_px=(0.7, 1.5), gradient_sigmas_px=(1.0,))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, np.float32)


def line(shape: tuple[int, int] = (33, 41)) -> np.ndarray:
    image = np.full(shape, 0.8, np.float32)
    image[:, 20:22] = 0.1
    return image


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("shape", [(61, 47), (5, 43, 37)])
def test_a_tile_with_its_context_has_the_maps_of_the_whole(shape, planes):
    config = EvidenceConfig(frangi_sigmas_px=(0.7, 1.5), gradient_sigmas_px=(1.0,), planes=planes)
    context, raw = context_px(config), noise(*shape)
    whole = feature_maps(raw, frangi_boundary(raw, config), config)
    for top, left, height, width in ((0, 0, 9, 7), (20, 13, 11, 17), (50, 30, 11, 7), (13, 1, 1, 3)):
        rows, columns = (
            slice(max(top - context, 0), top + height + context),
            slice(max(left - context, 0), left + width + context),
        )
        tile = np.ascontiguousarray(raw[..., rows, columns])
        maps = feature_maps(tile, frangi_boundary(tile, config), config)
        inside = (
            ...,
            slice(top - rows.start, top - rows.start + height),
            slice(left - columns.start, left - columns.start + width),
        )
        np.testing.assert_array_equal(maps[inside], whole[..., top : top + height, left : left + width])


def test_ridges_of_images_are_those_of_scikit_image_away_from_the_edge():
    raw = noise(64, 80)
    for sigma in (1.0, 2.0):
        config = EvidenceConfig(frangi_sigmas_px=(sigma,), frangi_gamma=0.3)
        theirs = frangi(raw.astype(np.float64), [sigma], beta=0.5, gamma=0.3 / sigma**2)
        ours = frangi_boundary(raw, config)
        # They derive twice with sigma / sqrt(2), which samples the Gaussian otherwise.
        difference = np.abs(ours - theirs)[16:-16, 16:-16]
        assert difference.mean() < 0.01
        assert np.corrcoef(ours[16:-16, 16:-16].ravel(), theirs[16:-16, 16:-16].ravel())[0, 1] > 0.98


def test_dark_lines_are_membranes_and_bright_ones_and_flat_ground_are_not():
    config = EvidenceConfig()
    dark, bright = frangi_boundary(line(), config), frangi_boundary(1 - line(), config)
    assert dark[:, 20:22].min() > 0.6
    assert bright[:, 20:22].max() == 0
    assert frangi_boundary(np.full((9, 8), 0.4, np.float32), config).max() == 0


def test_sheets_of_a_volume_are_the_lines_of_its_planes():
    stack = np.repeat(line()[None], 7, axis=0)
    in_plane = frangi_boundary(stack, EvidenceConfig(planes=True))
    np.testing.assert_array_equal(in_plane[3], frangi_boundary(line(), EvidenceConfig()))
    np.testing.assert_allclose(frangi_boundary(stack, EvidenceConfig()), in_plane, atol=1 / 255)


def test_turned_volumes_have_turned_maps():
    raw = noise(9, 10, 11)
    turned = np.ascontiguousarray(raw.transpose(1, 2, 0))
    maps = feature_maps(raw, raw, SMALL)
    np.testing.assert_allclose(feature_maps(turned, turned, SMALL), maps.transpose(0, 2, 3, 1), atol=1)


def test_maps_are_scaled_as_told():
    config = EvidenceConfig(gradient_sigmas_px=(2.0,), frangi_sigmas_px=(2.0,))
    step = np.zeros((40, 40), np.float32)
    step[:, 20:] = 1
    maps = dict(zip(map_names(config), feature_maps(step, 1 - step, config), strict=True))
    assert list(maps) == ["raw", "boundary", "gradient_2px", "ridge_2px"]
    np.testing.assert_array_equal(maps["raw"], 255 * step)
    np.testing.assert_array_equal(maps["boundary"], 255 - maps["raw"])
    # A step of height 1, blurred, rises by 1 / (sqrt(2 pi) sigma) a pixel half a pixel from its middle at the most.
    slope = 1 / np.sqrt(2 * np.pi) * np.exp(-0.5 * (0.5 / 2) ** 2)
    assert maps["gradient_2px"][20, 20] == pytest.approx(255 * np.sqrt(slope / 0.4), abs=2)
    assert maps["ridge_2px"][20, 0] == 128
    assert maps["ridge_2px"][20, 18] > 200 > 60 > maps["ridge_2px"][20, 21]


def test_what_is_not_finite_or_of_another_shape_is_refused():
    raw = noise(9, 8)
    with pytest.raises(DataError, match=r"\(9, 8\).*\(8, 9\)"):
        feature_maps(raw, noise(8, 9), SMALL)
    raw[3, 4] = np.nan
    with pytest.raises(DataError, match="1 pixels"):
        frangi_boundary(raw, SMALL)
