"""The methods by name, and ``stylize`` on arrays of every kind; the network is a small seeded one, from a file."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import raydom
from raydom.algorithms.arrays import stylize
from raydom.algorithms.style_interface import StyleInput
from raydom.algorithms.styles import METHODS, get_method, methods, style_config
from raydom.commands import CompareConfig
from raydom.config import METHODS as METHODS_OF_CONFIG
from raydom.config import TRAINED, StyleConfig, StyleOptions
from raydom.errors import ConfigError, DataError
from raydom.images.intensity import fraction_statistics, image_statistics, to_fraction

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def nst(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Options of nst for the first two convolutions of a VGG-19 with seeded weights."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, inputs in ((0, 3), (2, 64)):
        scale = (2 / (9 * inputs)) ** 0.5
        state[f"features.{index}.weight"] = scale * torch.randn(64, inputs, 3, 3, generator=generator)
        state[f"features.{index}.bias"] = torch.zeros(64)
    path = tmp_path_factory.mktemp("weights") / "vgg19.pth"
    torch.save(state, path)
    return {
        "features": "vgg19",
        "weights": str(path),
        "style_layers": ("relu1_1", "relu1_2"),
        "content_layers": ("relu1_2",),
        "steps": 3,
    }


def small(method: str, nst: dict) -> dict[str, object]:
    """Options with which a method is quick, and sees through the small network if it sees through any."""
    if method in ("strotss", "analogy"):
        own = {
            "strotss": {"steps": 3, "samples": 32, "style_samples": 64},
            "analogy": {"patchmatch_iterations": 1, "deconvolution_iterations": 2},
        }[method]
        return {"features": nst["features"], "weights": nst["weights"], "layers": nst["style_layers"], **own}
    return nst if method == "nst" else {}


def picture(dtype: str, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Random intensities between two fractions of the legal range."""
    fractions = low + (high - low) * RNG.random(shape)
    return (fractions * np.iinfo(dtype).max).astype(dtype) if np.dtype(dtype).kind in "ui" else fractions.astype(dtype)


def prepared(method: str, style: np.ndarray, **nst: object) -> object:
    return get_method(method).prepare(style_input(style), style_config(method, nst))


def style_input(*pixels: np.ndarray) -> StyleInput:
    """A batch of (c, h, w) images."""
    statistics = [image_statistics(p) for p in pixels]
    fractions = [torch.from_numpy(to_fraction(p, s)) for p, s in zip(pixels, statistics, strict=True)]
    own = tuple(fraction_statistics(s, pixels[0].dtype) for s in statistics)
    return StyleInput(torch.stack(fractions), own)


@pytest.mark.parametrize("method", sorted({*METHODS} - {"macenko", *TRAINED}))  # which take other images, or a run
@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("uint8", (13, 20, 3)),
        ("uint16", (17, 12)),
        ("float32", (17, 12, 1)),
        ("float64", (9, 11, 3)),
        ("int16", (17, 12)),
    ],
)
def test_shape_and_dtype_are_kept(method: str, dtype: str, shape: tuple[int, ...], nst: dict) -> None:
    style = picture("uint8", (9, 31, *shape[2:]), 0.5, 1.0)
    image = picture(dtype, shape, 0.0, 0.4)
    before = image.copy()
    result = stylize(image, style, method, **small(method, nst))
    assert result.shape == image.shape and result.dtype == image.dtype
    assert np.array_equal(image, before)
    if method == "none":
        assert np.array_equal(result, image)
    else:  # intensities are the style's
        assert result.mean() / image.max() > 1.5


@pytest.mark.parametrize("method", ["meanstd", "histogram", "nst", "strotss", "analogy"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_channels_may_be_on_any_axis(method: str, axis: int, nst: dict) -> None:
    options = small(method, nst)
    image, style = picture("uint8", (12, 10, 2)), picture("uint8", (8, 9, 2), 0.3, 0.5)
    expected = stylize(image, style, method, **options)
    moved = stylize(np.moveaxis(image, -1, axis), np.moveaxis(style, -1, axis), method, channel_axis=axis, **options)
    assert np.array_equal(np.moveaxis(moved, axis, -1), expected)


def test_12_bit_images_in_16_bit_files_are_seen_and_come_back_in_the_range_of_the_style(nst: dict) -> None:
    image, style = picture("uint16", (20, 20), 0.0, 1 / 16), picture("uint16", (20, 20), 0.01, 0.03)
    result = stylize(image, style, "nst", **nst, init="content")
    assert result.mean() == pytest.approx(style.mean(), rel=0.1)
    assert result.std() == pytest.approx(style.std(), rel=0.3)


def test_float_images_outside_0_to_1_take_the_scale_of_a_float_style() -> None:
    image, style = RNG.normal(500, 100, (30, 20)), RNG.normal(-3, 2, (25, 25))
    result = stylize(image, style, "meanstd")
    assert result.mean() == pytest.approx(style.mean(), abs=1e-3)
    assert result.std() == pytest.approx(style.std(), rel=1e-3)


@pytest.mark.parametrize("method", ["meanstd", "histogram", "reinhard", "nst", "strotss", "analogy"])
@pytest.mark.parametrize("value", [0, 128])
def test_constant_images_and_styles_have_a_result(method: str, value: int, nst: dict) -> None:
    options = small(method, nst)
    flat, other = np.full((12, 10, 3), value, np.uint8), picture("uint8", (12, 10, 3))
    for image, style in ((flat, other), (other, flat), (flat, flat)):
        result = stylize(image, style, method, **options)
        assert result.shape == image.shape
    assert np.array_equal(stylize(flat, flat, "meanstd"), flat)


def test_without_steps_nst_is_its_start(nst: dict) -> None:
    image, style = picture("uint8", (12, 10, 3)), picture("uint8", (9, 9, 3), 0.3, 0.7)
    for start in ("meanstd", "histogram", "reinhard"):
        assert np.array_equal(stylize(image, style, **nst | {"steps": 0, "init": start}), stylize(image, style, start))
    noise = [stylize(image, style, **nst | {"steps": 0, "init": "noise", "seed": seed}) for seed in (1, 1, 2)]
    assert np.array_equal(noise[0], noise[1]) and not np.array_equal(noise[0], noise[2])


def test_nst_begins_at_the_image_it_is_given(nst: dict) -> None:
    content = style_input(picture("uint8", (3, 12, 10)))
    apply = prepared("nst", picture("uint8", (3, 9, 9)), **nst | {"steps": 0})
    begin = torch.rand(1, 3, 12, 10)
    torch.testing.assert_close(apply(StyleInput(content.pixels, content.statistics, begin), torch.Generator()), begin)


def test_analogy_lays_out_the_matched_image_if_told_so(nst: dict) -> None:
    image, style = picture("uint8", (12, 10)), picture("uint8", (9, 14), 0.3, 0.7)
    options = small("analogy", nst)
    plain, matched = (stylize(image, style, "analogy", init=init, **options) for init in ("content", "histogram"))
    assert np.array_equal(plain, stylize(image, style, "analogy", **options)) and not np.array_equal(plain, matched)
    with pytest.raises(ConfigError, match="cannot begin from noise"):
        stylize(image, style, "analogy", init="noise", **options)


@pytest.mark.parametrize("method", ["meanstd", "histogram", "reinhard", "nst", "strotss", "analogy"])
@pytest.mark.parametrize("init", ["meanstd", "noise"])
def test_an_image_does_not_depend_on_its_batch(method: str, init: str, nst: dict) -> None:
    a, b = picture("uint8", (3, 12, 10), 0, 0.2), picture("uint8", (3, 12, 10))
    options = small(method, nst) | ({"init": init} if method == "nst" else {})
    apply = prepared(method, picture("uint8", (3, 9, 9)), **options)
    both = apply(style_input(a, b), torch.Generator().manual_seed(3))
    for number, one in enumerate((a, b)):
        alone = apply(style_input(one), torch.Generator().manual_seed(3))
        torch.testing.assert_close(both[number : number + 1], alone, atol=1e-4, rtol=0)


def test_a_large_image_keeps_its_fine_detail_and_takes_the_look_of_its_overview(nst: dict) -> None:
    image, style = picture("uint8", (90, 70), 0.1, 0.3), picture("uint8", (40, 40), 0.4, 0.9)
    options = nst | {"overview_px": 32, "content_layers": ("relu1_1",)}
    result = stylize(image, style, **options)
    matched = stylize(image, style, "meanstd")
    detail, matched_detail = (np.diff(x.astype(float), axis=0) for x in (result, matched))
    assert np.corrcoef(detail.ravel(), matched_detail.ravel())[0, 1] > 0.9
    assert not np.array_equal(result, matched)
    without = stylize(image, style, **options | {"steps": 0, "refine_steps": 0}).astype(int)
    assert np.abs(without - matched).max() <= 1


def test_regions_look_like_what_has_the_same_label(nst: dict) -> None:
    image, style = picture("uint8", (40, 24), 0.4, 0.6), picture("uint8", (30, 20), 0.0, 0.1)
    style[:, :10] += 200
    top, left = np.zeros((40, 24), int), np.zeros((30, 20), np.uint8)
    top[:20], left[:, :10] = 2, 2
    options = small("strotss", nst) | {"learning_rate": 0.1, "steps": 25, "content_weight": 0.0}
    for overview_px in (1024, 32):
        result = stylize(
            image, style, "strotss", **options, overview_px=overview_px, content_regions=top, style_regions=left
        )
        assert result[:17].mean() > result[23:].mean() + 60
    with pytest.raises(ConfigError, match="method nst knows no regions"):
        stylize(image, style, "nst", **nst, content_regions=top, style_regions=left)
    with pytest.raises(ConfigError, match=r"style_regions must be integer labels of shape \(30, 20\); got none"):
        stylize(image, style, "strotss", **options, content_regions=top)
    with pytest.raises(ConfigError, match=r"style_regions lack \[2\]"):
        stylize(image, style, "strotss", **options, content_regions=top, style_regions=np.zeros_like(left))


def test_strotss_begins_where_it_is_told(nst: dict) -> None:
    image, style = picture("uint8", (12, 10, 3)), picture("uint8", (9, 9, 3), 0.3, 0.7)
    still = small("strotss", nst) | {"steps": 0}
    for start in ("meanstd", "histogram", "reinhard"):
        assert np.array_equal(stylize(image, style, "strotss", **still, init=start), stylize(image, style, start))
    assert np.array_equal(stylize(image, style, "strotss", **still), stylize(image, style, "meanstd"))
    paper = stylize(image, style, "strotss", **still, init="colour")
    np.testing.assert_allclose(paper.mean((0, 1)), style.mean((0, 1)), atol=3)
    assert paper.std() < image.std()  # only the finest detail
    with pytest.raises(ConfigError, match="strotss cannot begin from noise; give init content, meanstd"):
        stylize(image, style, "strotss", **still, init="noise")
    with pytest.raises(ConfigError, match="nst cannot begin from colour"):
        stylize(image, style, "nst", **nst, init="colour")
    content = style_input(picture("uint8", (3, 12, 10)))
    begin = torch.rand(1, 3, 12, 10)
    result = prepared("strotss", style.transpose(2, 0, 1), **still)(
        StyleInput(content.pixels, content.statistics, begin), torch.Generator()
    )
    torch.testing.assert_close(result, begin)


def test_requests_that_make_no_sense_are_refused(nst: dict) -> None:
    gray, rgb = picture("uint8", (12, 10)), picture("uint8", (12, 10, 3))
    with pytest.raises(ConfigError, match="unknown style method 'histogramm'; did you mean histogram"):
        stylize(gray, gray, "histogramm")
    with pytest.raises(ConfigError, match=r"unknown setting nst\.step; did you mean nst\.steps"):
        stylize(gray, gray, "nst", step=3)
    with pytest.raises(ConfigError, match="wrong type"):
        stylize(gray, gray, "nst", steps="many")
    with pytest.raises(ConfigError, match="method meanstd has no option steps"):
        stylize(gray, gray, "meanstd", steps=3)
    with pytest.raises(ConfigError, match=r"image has 3 channels .* and the style 1"):
        stylize(rgb, gray, "meanstd")
    with pytest.raises(ConfigError, match="style holds NaN or infinity in 1 values"):
        stylize(gray, np.array([[0.0, np.nan], [1.0, 1.0]]), "meanstd")
    with pytest.raises(ConfigError, match=r"got shape \(2, 2, 2, 2\)"):
        stylize(np.zeros((2, 2, 2, 2)), gray, "meanstd")
    with pytest.raises(ConfigError, match="channel_axis must be between -3 and 2; got 3"):
        stylize(rgb, rgb, "meanstd", channel_axis=3)
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        stylize(rgb[..., :2], rgb[..., :2], "reinhard")
    with pytest.raises(ConfigError, match="no layer 'relu4_2'; it has relu1_1, relu1_2"):
        stylize(gray, gray, **nst | {"content_layers": ("relu4_2",)})


def test_the_names_are_those_of_the_configuration() -> None:
    assert methods() == METHODS_OF_CONFIG == raydom.methods()
    not_pointwise = {name for name in methods() if not get_method(name).pointwise}
    assert not_pointwise == {"macenko", "nst", "strotss", "analogy", *TRAINED}


def invert(content: StyleInput, style: StyleInput, config: StyleConfig, generator: torch.Generator) -> Tensor:
    return 1 - content.pixels


def shrink(content: StyleInput, style: StyleInput, config: StyleConfig, generator: torch.Generator) -> Tensor:
    return content.pixels[..., 1:]


def test_anybodys_function_is_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("lab_styles")
    module.invert, module.shrink, module.number = invert, shrink, 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lab_styles", module)
    monkeypatch.setattr(invert, "pointwise", True, raising=False)
    monkeypatch.setattr(invert, "version", 7, raising=False)
    found = get_method("lab_styles:invert")
    assert (found.pointwise, found.version) == (True, 7)
    assert (get_method("lab_styles:shrink").pointwise, get_method("lab_styles:shrink").version) == (False, 1)
    image = picture("uint8", (5, 4))
    assert np.array_equal(stylize(image, image, "lab_styles:invert"), 255 - image)
    with pytest.raises(DataError, match=r"lab_styles:shrink returned \(1, 1, 5, 3\)"):
        stylize(image, image, "lab_styles:shrink")
    with pytest.raises(ConfigError, match=r"has no function 'inverse'.*Did you mean lab_styles:invert"):
        get_method("lab_styles:inverse")
    with pytest.raises(ConfigError, match="has no function 'number'"):
        get_method("lab_styles:number")
    with pytest.raises(ConfigError, match="module no_such_lab cannot be imported"):
        get_method("no_such_lab:style")


def test_nst_sees_with_the_encoder_of_a_model_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raydom.algorithms import styles
    from raydom.config import ModelSpec, NetworkConfig
    from raydom.networks.unet import UNet

    config = NetworkConfig(base_channels=4, depth=1)
    spec = ModelSpec(
        network=config,
        channels=("gray",),
        low=0.0,
        high=0.1,
        pixel_size_um=None,
        total_stride=2,
        receptive_field_px=9,
    )
    monkeypatch.setattr(styles, "load_trained", lambda run: (UNet(config).eval(), spec))
    image, style = picture("uint16", (20, 15), 0.0, 0.02), picture("uint16", (10, 10), 0.02, 0.1)
    result = stylize(image, style, features=f"encoder:{tmp_path}", steps=5, init="content")
    assert result.mean() == pytest.approx(style.mean(), rel=0.3)
    rgb = picture("uint8", (8, 8, 3))
    with pytest.raises(ConfigError, match="trained on 1 channels and the images have 3"):
        stylize(rgb, rgb, features=f"encoder:{tmp_path}")


def test_content_that_is_lost_is_told_left_as_it_was_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    image, style = np.kron(picture("uint8", (8, 8)), np.ones((8, 8), np.uint8)), picture("uint8", (64, 64))
    method = f"{__name__}:blank"
    assert np.ptp(stylize(image, style, method)) == 0
    assert "has not kept the content: its score is 0.0" in caplog.text
    assert np.array_equal(stylize(image, style, method, on_content_loss="fallback"), image)
    with pytest.raises(DataError, match="has not kept the content"):
        stylize(image, style, method, on_content_loss="fail")


def blank(content: StyleInput, style: StyleInput, config: StyleConfig, generator: torch.Generator) -> Tensor:
    return torch.full_like(content.pixels, 0.5)


def test_pooling_changes_what_deep_layers_see(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for index, inputs, outputs in ((0, 3, 64), (2, 64, 64), (5, 64, 128)):
        state[f"features.{index}.weight"] = 0.05 * torch.randn(outputs, inputs, 3, 3, generator=generator)
        state[f"features.{index}.bias"] = torch.zeros(outputs)
    torch.save(state, tmp_path / "vgg19.pth")
    image, style = picture("uint8", (24, 24)), picture("uint8", (24, 24))
    options = {"features": "vgg19", "weights": str(tmp_path / "vgg19.pth"), "steps": 3, "style_layers": ("relu2_1",)}
    found = [stylize(image, style, "nst", pooling=pooling, **options) for pooling in ("max", "average")]
    assert not np.array_equal(*found)


def test_options_of_generators_are_refused_where_they_mean_nothing():
    for method, options, told in (
        (
            "meanstd",
            {"style": "x.png", "direction": "source-to-target"},
            "--direction has no effect with method meanstd",
        ),
        ("cyclegan", {"generator": "r", "to_domain": "a"}, "--to-domain has no effect with method cyclegan"),
        ("cyclegan", {"generator": "r", "attribute": "sampled"}, "--attribute has no effect with method cyclegan"),
        ("drit", {"generator": "r", "to_domain": "a", "direction": "source-to-target"}, "no effect with --to-domain a"),
    ):
        with pytest.raises(ConfigError, match=told):
            StyleConfig(method=method, **options)
    options = StyleOptions(to_domain="a", generator="r")
    CompareConfig(source="s", target="t", out="o", model=("m",), methods=("none", "drit"), options=options)
    with pytest.raises(ConfigError, match="--to-domain has no effect with these methods"):
        CompareConfig(source="s", target="t", out="o", model=("m",), methods=("cyclegan",), options=options)
