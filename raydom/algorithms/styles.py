"""The style methods by name.

A method makes images look like a style image. It is prepared once for a style, which may be slow (a network is
loaded), and then applied to any number of images or blocks. All pixels are fractions of the legal range; all statistics
are those of whole images, so that a block is treated as its image is.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from raydom.algorithms import analogy, macenko, matching, nst, strotss
from raydom.algorithms.display import DisplayRange
from raydom.algorithms.style_interface import Apply, Method, StyleInput, within_legal_range
from raydom.algorithms.trained import load_trained
from raydom.algorithms.translation import Translation
from raydom.config import DEFAULT_FEATURES, FEATURES, MATCHING, TRAINED, StyleConfig, StyleOptions, from_dict
from raydom.errors import ConfigError, DataError
from raydom.images.resample import grid_size, resample
from raydom.networks.features import EncoderFeatures, FeatureNetwork, load_features
from raydom.networks.unet import UNet
from raydom.storage.model_run import open_generator_run
from raydom.types import Region


def get_method(name: str) -> Method:
    """The method of that name, or the function ``package.module:function``.

    A function is called as ``function(content, style, config, generator)`` with two ``StyleInput``, the ``StyleConfig``
    and a ``torch.Generator``, and returns the stylised pixels, shaped like ``content.pixels``. Its attributes
    ``pointwise`` (default False) and ``version`` (default 1) are honoured.

    Raises:
        ConfigError: If there is no such method or function.
    """
    if ":" in name:
        return _imported(name)
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"unknown style method {name!r}; {hint}Choose one of {', '.join(METHODS)}, or name your own as "
            "package.module:function."
        )
    return METHODS[name]


def with_features(config: StyleConfig) -> StyleConfig:
    """The configuration with its feature network by name: that of the preset, else the one that needs no weights.

    It does not hang on what a machine happens to have in its cache: all workers compute with one network.

    Raises:
        ConfigError: For weights without the name of their network.
    """
    if config.method not in USES_FEATURES or config.features is not None:
        return config
    named = config.nst.settings().features if config.method == "nst" else None
    if named is None and config.weights is not None:
        raise ConfigError(f"weights {config.weights}: of which network? Give --features too: {', '.join(FEATURES)}.")
    return dataclasses.replace(config, features=named or DEFAULT_FEATURES)


def weights_digest(config: StyleConfig) -> str | None:
    """Hash of the weights that a configuration's method computes with; None if it has none."""
    if config.method in TRAINED:
        return open_generator_run(str(config.generator)).content_hash
    if config.method not in USES_FEATURES:
        return None
    config = with_features(config)
    return feature_network(str(config.features), config.weights, "cpu").digest()


def floats_per_px(config: StyleConfig, num_channels: int) -> float:
    """About how many numbers a pixel costs in memory while a method computes; 0 where that is little or not known."""
    if config.method in TRAINED:
        spec = open_generator_run(str(config.generator)).spec
        return MAPS_PER_CHANNEL[config.method] * spec.generator.base_channels
    if config.method not in USES_FEATURES:
        return 0.0
    config = with_features(config)
    network = feature_network(str(config.features), config.weights, "cpu")
    own = config.nst.settings()
    chosen = (
        *(own.style_layers or network.default_style_layers),
        *(own.content_layers or network.default_content_layers),
    )
    floats = network.floats_per_px(chosen if config.method == "nst" else network.layers)
    # The network sees three channels as one image, and of any other number each as one.
    return floats * (1 if num_channels == 3 else num_channels)


def methods() -> tuple[str, ...]:
    """Names of the methods that come with raydom."""
    return tuple(METHODS)


# -------------------------------------------------------------------------------------------------------- the methods


def _prepare_none(style: StyleInput, config: StyleConfig) -> Apply:
    return lambda content, generator: content.pixels


def _prepare_matching(function: Callable[..., Tensor]) -> Callable[[StyleInput, StyleConfig], Apply]:
    def prepare(style: StyleInput, config: StyleConfig) -> Apply:
        _, style_statistics = style.each()[0]

        def apply(content: StyleInput, generator: torch.Generator) -> Tensor:
            return torch.cat([function(pixels, own, style_statistics) for pixels, own in content.each()])

        return apply

    return prepare


_MATCHING = {name: getattr(matching, name) for name in MATCHING}


class _Macenko:
    """Stain normalisation; the stains of an image are seen on its overview."""

    halo_px, stride_px = 0, 1

    def __init__(self, style: StyleInput, config: StyleConfig) -> None:
        self.stains = macenko.stains_of(style.pixels[0], "the style image")

    def __call__(self, content: StyleInput, generator: torch.Generator) -> Tensor:
        return torch.cat([self.adapt(StyleInput(*one), self.learn(StyleInput(*one))) for one in content.each()])

    def learn(self, seen: StyleInput) -> dict[str, np.ndarray]:
        return dataclasses.asdict(macenko.stains_of(seen.pixels[0], "the image"))

    def adapt(self, part: StyleInput, learned: Mapping[str, np.ndarray]) -> Tensor:
        return macenko.macenko(part.pixels, macenko.Stains(**learned), self.stains)


class _Optimising:
    """What methods share that optimise an image as a feature network sees it."""

    starts: tuple[str, ...] = ("content", *MATCHING, "macenko")

    def __init__(self, style: StyleInput, config: StyleConfig, init: str) -> None:
        if init not in self.starts:
            raise ConfigError(f"{config.method} cannot begin from {init}; give init {', '.join(self.starts)}.")
        style_pixels, self.style_statistics = style.each()[0]
        self.init = init
        self.unstained = _Macenko(style, config) if init == "macenko" else None
        self.network = feature_network(str(config.features), config.weights, str(style_pixels.device))
        self.shown = DisplayRange.of(self.style_statistics)
        self.style = self.shown.stretch(style_pixels)

    def view(self, stretched: Tensor) -> Tensor:
        """Stretched images as the network takes them."""
        return stretched if self.network.sees_display_range else self.shown.restore(stretched)

    def stretched(self, content: StyleInput, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The content and where to begin, as a viewer would show them."""
        for pixels, own in content.each():
            matching.check_channels(pixels, own, self.style_statistics)
        stretched = torch.cat([DisplayRange.of(own).stretch(pixels) for pixels, own in content.each()])
        if content.initial is not None:
            return stretched, self.shown.stretch(content.initial)
        if self.init == "colour":
            return stretched, self.style.mean(dim=(2, 3), keepdim=True)
        if self.init == "content":
            return stretched, stretched
        if self.init == "noise":
            # One noise for all, so that an image does not depend on its neighbours in the batch.
            noise = torch.rand(content.pixels.shape[1:], generator=generator)
            return stretched, noise.to(stretched).expand_as(stretched)
        if self.unstained is not None:
            return stretched, self.shown.stretch(self.unstained(content, generator))
        matched = [_MATCHING[self.init](pixels, own, self.style_statistics) for pixels, own in content.each()]
        return stretched, self.shown.stretch(torch.cat(matched))

    def legal(self, stretched: Tensor) -> Tensor:
        """Fractions of the style's range."""
        return within_legal_range(self.shown.restore(stretched), self.style_statistics)


class _Nst(_Optimising):
    """Gatys' method, from a start image that is in the style's intensities already."""

    starts = (*_Optimising.starts, "noise")

    def __init__(self, style: StyleInput, config: StyleConfig) -> None:
        self.settings = config.nst.settings()
        super().__init__(style, config, config.init or self.settings.init)
        self.network = self.network.with_pooling(self.settings.pooling)
        self.targets = nst.style_targets(self.style, self.network, self.settings, self.view)
        self.coarse = (
            nst.style_targets(nst.halved(self.style), self.network, self.settings, self.view)
            if self.settings.coarse_steps
            else None
        )
        self.halo_px, self.stride_px = self.targets.halo_px, self.targets.stride_px
        self.refine_steps = self.settings.refine_steps

    def __call__(self, content: StyleInput, generator: torch.Generator) -> Tensor:
        *_, (_, images) = self.progress(content, generator, ())
        return images

    def progress(
        self, content: StyleInput, generator: torch.Generator, pauses: Sequence[int]
    ) -> Iterator[tuple[int, Tensor]]:
        stretched, start = self.stretched(content, generator)
        if self.coarse is not None:
            start = nst.coarse_start(stretched, start, self.coarse, self.settings)
        for steps, images in nst.progress(stretched, start, self.targets, self.settings, pauses):
            yield steps, self.legal(images)

    def survey(self, windows: StyleInput, generator: torch.Generator) -> dict[str, np.ndarray]:
        return nst.survey(*self.stretched(windows, generator), self.targets, self.settings).to_arrays()

    def refine(self, part: StyleInput, survey: Mapping[str, np.ndarray], generator: torch.Generator) -> Tensor:
        known = nst.Survey.from_arrays(survey, self.targets)
        return self.legal(nst.replay(*self.stretched(part, generator), self.targets, known, self.settings))


class _Strotss(_Optimising):
    """Kolkin's method. Unless told otherwise from the matched image, which keeps the contrast of the finest detail."""

    starts = (*_Optimising.starts, "colour")

    def __init__(self, style: StyleInput, config: StyleConfig) -> None:
        super().__init__(style, config, config.init or "meanstd")
        self.settings = config.strotss
        layers = self.settings.layers or self.network.default_hypercolumn_layers
        self.sight = strotss.Sight(self.network, layers, self.view)

        @functools.lru_cache(maxsize=8)
        def samples(longest_px: int) -> list[dict[int, strotss.StyleSamples]]:
            """Drawn once for each scale, whatever the images."""
            generator = torch.Generator().manual_seed(config.seed)
            num = self.settings.style_samples
            return strotss.style_samples(self.style, longest_px, self.sight, num, generator, style.regions)

        self.samples = samples

    def __call__(self, content: StyleInput, generator: torch.Generator) -> Tensor:
        stretched, start = self.stretched(content, generator)
        return self.legal(
            strotss.transfer(stretched, start, self.samples, self.sight, self.settings, generator, content.regions)
        )


class _Analogy(_Optimising):
    """Deep Image Analogy: the style's pixels, laid out like the content.

    Where a start is given, or a matching named (``init``), that stands for the content in everything.
    """

    def __init__(self, style: StyleInput, config: StyleConfig) -> None:
        super().__init__(style, config, config.init or "content")
        self.settings = config.analogy
        self.features = analogy.style_features(self.style, self.network, self.settings, self.view)

    def __call__(self, content: StyleInput, generator: torch.Generator) -> Tensor:
        _, seen = self.stretched(content, generator)
        # The same chance for all, so that an image does not depend on its neighbours in the batch.
        seed = int(torch.randint(2**62, (), generator=generator))
        results = [
            analogy.transfer(one, self.features, self.settings, torch.Generator().manual_seed(seed))
            for one in seen.split(1)
        ]
        return self.legal(torch.cat(results))


METHODS = {
    "none": Method("none", _prepare_none, pointwise=True, version=1),
    **{
        name: Method(name, _prepare_matching(function), pointwise=True, version=1)
        for name, function in _MATCHING.items()
    },
    "macenko": Method("macenko", _Macenko, pointwise=False, version=1, learns=True),
    "nst": Method("nst", _Nst, pointwise=False, version=2, refines=True),
    "strotss": Method("strotss", _Strotss, pointwise=False, version=1, takes_regions=True),
    "analogy": Method("analogy", _Analogy, pointwise=False, version=1),
    "cyclegan": Method("cyclegan", Translation, pointwise=False, version=1, learns=True),
    "drit": Method("drit", Translation, pointwise=False, version=1, learns=True),
}

MAPS_PER_CHANNEL = {"cyclegan": 4, "drit": 7}
"""Float maps of full size that a generator holds at its peak, for each channel of its first convolution; measured:
3.5 to 3.8, and 5.6 to 7.2."""
USES_FEATURES = ("nst", "strotss", "analogy")
"""Methods that look at images through a feature network."""


@functools.lru_cache(maxsize=2)
def feature_network(features: str, weights: str | None, device: str) -> FeatureNetwork:
    """Loaded once in a process."""
    if not features.startswith("encoder:"):
        network: FeatureNetwork = load_features(features, weights)
    else:
        run = features.removeprefix("encoder:")
        segmenter, spec = load_trained(run)
        if not isinstance(segmenter, UNet):
            raise ConfigError(
                f"features encoder:{run}: needs the model run of a unet; this is one of a {spec.network.name}."
            )
        network = EncoderFeatures(segmenter, spec, run)
    return network.to(torch.device(device)).to(memory_format=torch.channels_last)


def _imported(name: str) -> Method:
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"style method {name}: module {module_name} cannot be imported ({error}); install its package on every "
            "node, or add its folder to PYTHONPATH."
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        near = difflib.get_close_matches(function_name, dir(module), n=1)
        hint = f" Did you mean {module_name}:{near[0]}?" if near else ""
        raise ConfigError(f"style method {name}: {module_name} has no function {function_name!r}.{hint}")

    def prepare(style: StyleInput, config: StyleConfig) -> Apply:
        def apply(content: StyleInput, generator: torch.Generator) -> Tensor:
            result = function(content, style, config, generator)
            if not isinstance(result, Tensor) or result.shape != content.pixels.shape:
                got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
                raise DataError(f"{name} returned {got}; it should return a tensor {tuple(content.pixels.shape)}.")
            if not bool(torch.isfinite(result).all()):
                raise DataError(f"{name} returned NaN or infinity.")
            return result

        return apply

    pointwise, version = getattr(function, "pointwise", False), getattr(function, "version", 1)
    return Method(name, prepare, pointwise=bool(pointwise), version=int(version))


def style_config(method: str, options: dict[str, Any]) -> StyleConfig:
    """The configuration of a method, from fields of the shared options and of its own.

    Raises:
        ConfigError: For an option that there is not, or one of the wrong type.
    """
    shared = {field.name: field for field in dataclasses.fields(StyleOptions)}
    own = shared.get(method)
    values = {name: value for name, value in options.items() if name in shared}
    rest = {name: value for name, value in options.items() if name not in shared}
    if rest and own is None:
        raise ConfigError(f"method {method} has no option {', '.join(rest)}; it has {', '.join(shared)}.")
    if own is not None:
        values.setdefault(method, rest)
    try:
        takes_style = from_dict(StyleOptions, values).takes_style(method)
        return from_dict(StyleConfig, {"method": method, "style": "array" if takes_style else None, **values})
    except TypeError as error:
        given = ", ".join(f"{name}={value!r}" for name, value in options.items())
        raise ConfigError(f"an option of {method} has the wrong type ({error}); got {given}.") from error


def shrunk(image: StyleInput, scale: float) -> StyleInput:
    if scale == 1.0:
        return image
    height, width = (grid_size(side, scale) for side in image.pixels.shape[2:])
    return dataclasses.replace(image, pixels=_resized(image.pixels, (height, width)))


def _resized(images: Float[Tensor, "1 c h w"], new_shape: tuple[int, ...]) -> Float[Tensor, "1 c new_h new_w"]:
    shape = tuple(images.shape[2:])
    pixels = resample(images[0].cpu().numpy(), Region.whole(shape), Region.whole(new_shape), shape, new_shape)
    return torch.from_numpy(pixels)[None].to(images.device)
