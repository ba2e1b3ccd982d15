from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from raydom.errors import DataError
from raydom.images import intensity
from raydom.images.intensity import (
    RunningStatistics,
    fraction_statistics,
    from_fraction,
    image_statistics,
    pooled_statistics,
    stream_statistics,
    to_fraction,
)
from raydom.types import PERCENTILE_LEVELS


def random_image(dtype: str, channels: int = 2) -> np.ndarray:
    generator = np.random.default_rng(0)
    if dtype == "bool":
        return generator.random((channels, 7, 5)) > 0.5
    if dtype.startswith("float"):
        return (generator.normal(size=(channels, 7, 5)) * 100).astype(dtype)
    legal = np.iinfo(dtype)
    return generator.integers(legal.min, legal.max, (channels, 7, 5), dtype=dtype, endpoint=True)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_statistics_are_those_of_numpy(dtype: str) -> None:
    pixels = random_image(dtype)
    statistics = image_statistics(pixels)
    wide = pixels.astype(np.float64).reshape(2, -1)
    np.testing.assert_allclose(statistics.minimum, wide.min(axis=1))
    np.testing.assert_allclose(statistics.maximum, wide.max(axis=1))
    np.testing.assert_allclose(statistics.mean, wide.mean(axis=1))
    np.testing.assert_allclose(statistics.std, wide.std(axis=1))
    np.testing.assert_allclose(statistics.percentiles, np.percentile(wide, PERCENTILE_LEVELS, axis=1).T, rtol=1e-5)
    assert statistics.lab_mean is None


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_strips_and_blocks_do_not_change_the_statistics(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = random_image(dtype, channels=3)
    whole = image_statistics(pixels)
    monkeypatch.setattr(intensity, "STRIP_PX", 5)
    streamed = stream_statistics(lambda: (pixels[:, :, start : start + 2] for start in (0, 2, 4)))
    spread = max(whole.maximum) - min(whole.minimum)
    for name in ("minimum", "maximum", "mean", "std"):
        np.testing.assert_allclose(getattr(streamed, name), getattr(whole, name), rtol=1e-6, err_msg=name)
    if dtype == "uint8":
        np.testing.assert_allclose(streamed.lab_mean, whole.lab_mean, rtol=1e-5)
        np.testing.assert_allclose(streamed.lab_std, whole.lab_std, rtol=1e-5)
        assert streamed.percentiles == whole.percentiles
    else:  # 35 pixels: numpy interpolates between them, a histogram does not
        assert streamed.percentile(0, 0.0) == whole.percentile(0, 0.0)
        assert streamed.percentile(0, 100.0) == pytest.approx(whole.percentile(0, 100.0))
        assert abs(streamed.percentile(0, 50.0) - whole.percentile(0, 50.0)) < 0.1 * spread


def test_streamed_percentiles_of_floats_are_fine() -> None:
    pixels = np.linspace(-3, 5, 200_000, dtype=np.float64).reshape(1, 400, 500)
    streamed = stream_statistics(lambda: [pixels])
    np.testing.assert_allclose(streamed.percentiles, image_statistics(pixels).percentiles, atol=8 / 65536)


def test_lab_statistics_are_those_of_scikit_image() -> None:
    pixels = random_image("uint8", channels=3)
    lab = rgb2lab(np.moveaxis(pixels, 0, -1)).reshape(-1, 3)
    statistics = image_statistics(pixels)
    np.testing.assert_allclose(statistics.lab_mean, lab.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(statistics.lab_std, lab.std(axis=0), rtol=1e-5)


def test_a_white_image_has_lightness_100() -> None:
    statistics = image_statistics(np.full((3, 3, 2), 65535, np.uint16))
    np.testing.assert_allclose(statistics.lab_mean, (100, 0, 0), atol=0.02)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(bad: float) -> None:
    pixels = np.zeros((1, 3, 2), np.float32)
    pixels[0, 1, 1] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        image_statistics(pixels)
    with pytest.raises(DataError, match="NaN or infinite"):
        stream_statistics(lambda: [pixels])


def test_empty_and_complex_images_are_refused() -> None:
    with pytest.raises(DataError, match="no pixels"):
        image_statistics(np.zeros((1, 0, 4), np.uint8))
    with pytest.raises(DataError, match="complex64"):
        image_statistics(np.zeros((1, 2, 4), np.complex64))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16"])
def test_every_small_integer_survives_the_way_there_and_back(dtype: str) -> None:
    if dtype == "bool":
        values = np.array([False, True])
    else:
        values = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)
    pixels = values.reshape(1, 2, -1)
    statistics = image_statistics(pixels)
    np.testing.assert_array_equal(from_fraction(to_fraction(pixels, statistics), dtype, statistics), pixels)


def test_fractions_beyond_the_legal_range_are_clipped_and_others_rounded() -> None:
    statistics = image_statistics(np.zeros((1, 1, 4), np.uint8))
    fraction = np.array([[[-0.5, 1.5, 0.4 / 255, 0.6 / 255]]], np.float32)
    np.testing.assert_array_equal(from_fraction(fraction, "uint8", statistics), [[[0, 255, 0, 1]]])
    assert from_fraction(np.full((1, 1, 1), 2, np.float32), "uint64", statistics) > 2**63


def test_floats_in_the_unit_range_are_taken_as_they_are() -> None:
    pixels = np.array([[[0.25, 0.5, 0.75]]], np.float64)
    statistics = image_statistics(pixels)
    np.testing.assert_array_equal(to_fraction(pixels, statistics), pixels)
    np.testing.assert_array_equal(from_fraction(np.full((1, 1, 1), 1.5, np.float32), "float32", statistics), [[[1.0]]])


def test_other_floats_are_scaled_by_their_percentiles() -> None:
    pixels = np.linspace(-100, 900, 1001, dtype=np.float32).reshape(1, 7, 143)
    statistics = image_statistics(pixels)
    fraction = to_fraction(pixels, statistics)
    assert float(fraction[0].ravel()[1]) == pytest.approx(0.0, abs=1e-6)  # -99 is the 0.1 percentile
    assert float(fraction[0].ravel()[-2]) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(from_fraction(fraction, "float32", statistics), pixels, rtol=1e-5, atol=1e-3)


def test_a_constant_float_image_is_all_zero_and_comes_back() -> None:
    pixels = np.full((1, 3, 2), 7.0, np.float32)
    statistics = image_statistics(pixels)
    assert not to_fraction(pixels, statistics).any()
    np.testing.assert_array_equal(from_fraction(to_fraction(pixels, statistics), "float32", statistics), pixels)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_fraction_statistics_are_the_statistics_of_the_fractions(dtype: str) -> None:
    pixels = random_image(dtype)
    statistics = image_statistics(pixels)
    expected = image_statistics(to_fraction(pixels, statistics))
    got = fraction_statistics(statistics, dtype)
    for name in ("minimum", "maximum", "mean", "std", "percentiles"):
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), atol=1e-6, err_msg=name)


def test_pooling_the_halves_of_an_image_gives_the_image() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (3, 60, 50), dtype=np.uint8)
    halves = [image_statistics(pixels[:, :20]), image_statistics(pixels[:, 20:])]
    pooled, whole = pooled_statistics(halves, [20, 40]), image_statistics(pixels)
    for name in ("minimum", "maximum", "mean", "std", "lab_mean", "lab_std"):
        np.testing.assert_allclose(getattr(pooled, name), getattr(whole, name), rtol=1e-9, err_msg=name)
    np.testing.assert_allclose(pooled.percentiles, whole.percentiles, atol=2.5)


def test_pooling_a_black_and_a_white_image_has_its_step_in_the_middle() -> None:
    black, white = (image_statistics(np.full((1, 3, 3), value, np.uint8)) for value in (0, 255))
    pooled = pooled_statistics([black, white])
    assert pooled.mean == (127.5,)
    assert (pooled.percentile(0, 49.0), pooled.percentile(0, 51.0)) == (0.0, 255.0)
    with pytest.raises(DataError, match="channels"):
        pooled_statistics([black, image_statistics(np.zeros((2, 3, 3), np.uint8))])


def test_one_outlier_does_not_take_the_percentiles_of_a_streamed_image_along() -> None:
    pixels = np.random.default_rng(0).gamma(3, 100, (1, 100, 100)).astype(np.float32)
    pixels[0, 3, 4] = 1e9
    streamed = stream_statistics(lambda: (pixels[:, :30], pixels[:, 30:]))
    np.testing.assert_allclose(streamed.percentiles, image_statistics(pixels).percentiles, rtol=1e-6)


def test_sums_of_parts_that_were_stored_are_those_of_the_whole() -> None:
    pixels = np.random.default_rng(1).normal(0, 5, (3, 20, 30)).astype(np.float32)
    whole, merged = RunningStatistics("float32", 3), RunningStatistics("float32", 3)
    whole.add(pixels)
    for part in (pixels[:, :7], pixels[:, 7:]):
        one = RunningStatistics("float32", 3)
        one.add(part)
        merged.merge(RunningStatistics.from_bytes(one.to_bytes()))
    for name in ("minimum", "maximum", "mean", "std", "percentiles", "lab_mean", "lab_std"):
        expected = getattr(whole.statistics(lambda: [pixels]), name)
        np.testing.assert_allclose(getattr(merged.statistics(lambda: [pixels]), name), expected, rtol=1e-6)
    assert type(merged._moments.count) is int  # NumPy's would overflow at billions of pixels
    stored = bytearray(whole.to_bytes())
    stored[len(stored) // 2] ^= 1
    with pytest.raises(DataError, match="checksum"):
        RunningStatistics.from_bytes(bytes(stored))
