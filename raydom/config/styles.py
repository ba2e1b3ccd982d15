"""What style methods can be told."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from raydom.config.base import require, to_dict

METHODS = ("none", "meanstd", "histogram", "reinhard", "macenko", "nst", "strotss", "analogy", "cyclegan", "drit")
TRAINED = ("cyclegan", "drit")
"""Methods that were trained, and take the run of that training instead of a style image; drit may take both."""
MATCHING = ("meanstd", "histogram", "reinhard")
"""Methods that move only intensities: cheap, and where the others can begin."""
FEATURES = ("raydom", "vgg19", "vgg16", "squeezenet1_1")
"""Feature networks that come with raydom, or whose weights torchvision knows."""
DEFAULT_FEATURES = "raydom"
DIRECTIONS = ("target-to-source", "source-to-target")
ATTRIBUTES = ("mean", "sampled", "style")


@dataclass(frozen=True, slots=True, kw_only=True)
class NstSettings:
    """All that neural style transfer needs to know; a preset is one of these."""

    features: str | None = None
    """Feature network; None: see StyleOptions."""
    init: str = "meanstd"
    """Starting image."""
    style_layers: tuple[str, ...] = ()
    """Layers whose Gram matrices carry the style. Empty: the network's default."""
    content_layers: tuple[str, ...] = ()
    """Layers whose features carry the content. Empty: the network's default."""
    loss: str = "sums"
    """sums (Gatys et al. 2016), notebook (their published code) or means (Neishabouri)."""
    pooling: str = "max"
    """What the feature network pools with: max (as it was trained) or average (the paper's advice)."""
    content_weight: float = 1.0
    """Weight of the content loss."""
    style_weight: float | None = None
    """Weight of the style loss; None: from style_ratio."""
    style_ratio: float = 10.0
    """Style against content when style_weight is None."""
    coarse_steps: int = 0
    """Steps at half size before those."""
    steps: int = 40
    """Optimiser steps on the overview."""
    refine_steps: int = 20
    """Steps at full size of images larger than the overview."""
    optimizer: str = "adam"
    """adam or lbfgs."""
    learning_rate: float = 0.02
    """Step size of Adam."""
    precision: str = "float32"
    """What the feature network computes in."""


# The gatys presets have the weights of the paper and of its code, which belong to networks trained in Caffe: with
# torchvision's, whose features are of another scale, set style_ratio instead. Neishabouri states neither weights nor
# layers; these are Gatys'.
_PAPER_STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
_GATYS = NstSettings(
    features="vgg19",
    init="noise",
    style_layers=_PAPER_STYLE,
    content_layers=("relu4_2",),
    pooling="average",
    style_weight=1e3,
    steps=500,
    refine_steps=75,
    optimizer="lbfgs",
)
_NOTEBOOK = dataclasses.replace(_GATYS, init="content", pooling="max", loss="notebook")
_NEURONS = dataclasses.replace(_NOTEBOOK, features="vgg16", loss="means", steps=75, refine_steps=40)
NST_PRESETS = {
    "cells": NstSettings(),
    "gatys": _GATYS,
    "gatys-notebook": _NOTEBOOK,
    "gatys-notebook-hr": dataclasses.replace(_NOTEBOOK, coarse_steps=500, steps=200),
    "neurons-75": _NEURONS,
    "neurons-150": dataclasses.replace(_NEURONS, steps=150, refine_steps=75),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NstConfig:
    """Neural style transfer of Gatys, Ecker and Bethge 2016 (arXiv:1508.06576): a preset, and what differs from it."""

    preset: str = "cells"
    """cells (shallow layers from the matched image, measured on microscopy), gatys (the paper), gatys-notebook (its
    published code), gatys-notebook-hr (with the first pass of that code at a lower resolution, here half), neurons-75
    and neurons-150 (Neishabouri: VGG-16, 75 and 150 steps)."""
    style_layers: tuple[str, ...] = ()
    """Layers whose Gram matrices carry the style, instead of the preset's."""
    content_layers: tuple[str, ...] = ()
    """Layers whose features carry the content, instead of the preset's."""
    loss: str | None = None
    """sums (the paper's), notebook (means, and 1000 / C^2 a style layer) or means (over N_l M_l, and N_l^2 M_l^2)."""
    pooling: str | None = None
    """max or average."""
    content_weight: float | None = None
    """Weight of the content loss (the paper's alpha); of the loss sums, stated for an image of 512 x 512 px."""
    style_weight: float | None = None
    """Weight of the style loss (the paper's beta)."""
    style_ratio: float | None = None
    """Sets style_weight from the style image, since the scale of the losses differs by orders of magnitude between
    feature networks: at 1, losing all features of the style image would cost as much in style as in content (at
    content_weight 1)."""
    coarse_steps: int | None = None
    """Steps at half size before those at the image's own (or the overview's): coarse-to-fine, for large structures."""
    steps: int | None = None
    """Optimiser steps: on the whole image, or on the overview of one that is larger."""
    refine_steps: int | None = None
    """Steps of the second pass, at full size, of images larger than the overview (Adam in any case)."""
    optimizer: str | None = None
    """adam or lbfgs."""
    learning_rate: float | None = None
    """Step size of Adam, in units of the intensity range; L-BFGS uses 1."""
    precision: str | None = None
    """What the feature network computes in: float32, or bfloat16, with which VGG is nearly twice as fast on processors
    that have it, for about a percent of the loss; losses and images stay float32."""

    def __post_init__(self) -> None:
        require(
            self.preset in NST_PRESETS,
            f"unknown nst.preset {self.preset!r}; choose one of {', '.join(NST_PRESETS)}.",
        )
        require(
            self.style_weight is None or self.style_ratio is None,
            f"give nst.style_weight or nst.style_ratio, not both; got {self.style_weight} and {self.style_ratio}.",
        )
        values = self.settings()
        for name in ("coarse_steps", "steps", "refine_steps"):
            require(getattr(values, name) >= 0, f"nst.{name} must be >= 0; got {getattr(values, name)}.")
        for name, known in {
            "optimizer": ("adam", "lbfgs"), "loss": ("sums", "notebook", "means"), "pooling": ("max", "average"),
            "precision": ("float32", "bfloat16"),
        }.items():  # fmt: skip
            value = getattr(values, name)
            require(value in known, f"nst.{name} must be one of {', '.join(known)}; got {value!r}.")
        style = values.style_ratio if values.style_weight is None else values.style_weight
        require(
            style >= 0 and values.content_weight >= 0 and style + values.content_weight > 0,
            "nst.content_weight and nst.style_weight (or style_ratio) must be >= 0 and not both 0; "
            f"got {values.content_weight} and {style}.",
        )
        require(values.learning_rate > 0, f"nst.learning_rate must be > 0; got {values.learning_rate}.")

    def settings(self) -> NstSettings:
        """The preset with what differs from it."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "preset"}
        changed = {name: value for name, value in given.items() if value not in (None, ())}
        if self.style_ratio is not None:
            changed["style_weight"] = None
        return dataclasses.replace(NST_PRESETS[self.preset], **changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class StrotssConfig:
    """Style transfer by relaxed optimal transport and self-similarity, Kolkin et al. 2019 (arXiv:1904.12785).

    The defaults were measured on microscopy. The paper: features vgg16, init colour, content_weight 1, steps 250,
    optimizer rmsprop.
    """

    layers: tuple[str, ...] = ()
    """Layers of the hypercolumns. Empty: the network's default (the paper's nine, in VGG-16)."""
    content_weight: float = 4.0
    """Weight of the content; times 16 at the first scale, and halved from scale to scale."""
    steps: int = 40
    """Steps a scale."""
    smallest_px: int = 64
    """Longer side at the first scale, at least: each scale before the image's own (or the overview's) halves it."""
    learning_rate: float = 2e-3
    """Step size on the Laplacian pyramid, in units of the intensity range; half of it at the last scale."""
    optimizer: str = "corrected"
    """corrected (RMSprop with Adam's correction of the first steps, and a rate that falls to 0 within each scale) or
    rmsprop (the paper's)."""
    samples: int = 1024
    """Locations of the image compared in a step."""
    style_samples: int = 5000
    """Locations of the style image kept for a scale, and for each region."""
    similarity: str = "normalized"
    """Self-similarity loss: normalized (distances over their column sums: the paper and its code) or plain."""

    def __post_init__(self) -> None:
        require(self.steps >= 0, f"strotss.steps must be >= 0; got {self.steps}.")
        for name in ("smallest_px", "samples", "style_samples"):
            require(getattr(self, name) >= 16, f"strotss.{name} must be >= 16; got {getattr(self, name)}.")
        require(self.content_weight >= 0, f"strotss.content_weight must be >= 0; got {self.content_weight}.")
        require(self.learning_rate > 0, f"strotss.learning_rate must be > 0; got {self.learning_rate}.")
        require(
            self.optimizer in ("corrected", "rmsprop"),
            f"strotss.optimizer must be corrected or rmsprop; got {self.optimizer!r}.",
        )
        require(
            self.similarity in ("normalized", "plain"),
            f"strotss.similarity must be normalized or plain; got {self.similarity!r}.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalogyConfig:
    """Deep Image Analogy, Liao et al. 2017 (arXiv:1705.01088)."""

    layers: tuple[str, ...] = ()
    """Layers, shallow to deep. Empty: the network's default (the paper's relu1_1 to relu5_1, in VGG-19)."""
    weight_level: int = 3
    """How much of the content's own features is kept, 1 (least) to 3."""
    patchmatch_iterations: int = 10
    """Iterations of PatchMatch at each layer."""
    deconvolution_iterations: int = 100
    """Iterations of L-BFGS at each layer, at most."""
    detail: str = "content"
    """content (the paper's photo mode: only the smooth part of the content, by weighted least squares, is replaced) or
    style (everything is: this loses the cells)."""

    def __post_init__(self) -> None:
        require(self.weight_level in (1, 2, 3), f"analogy.weight_level must be 1, 2 or 3; got {self.weight_level}.")
        require(self.detail in ("content", "style"), f"analogy.detail must be content or style; got {self.detail!r}.")
        for name in ("patchmatch_iterations", "deconvolution_iterations"):
            require(getattr(self, name) >= 1, f"analogy.{name} must be >= 1; got {getattr(self, name)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleOptions:
    """How style methods work, whichever is chosen."""

    features: str | None = None
    """Feature network of nst, strotss and analogy: raydom (comes with raydom, no download), vgg19, vgg16, squeezenet1_1
    (trained on ImageNet), or encoder:RUN for the encoder of a trained segmenter. Default: the preset's, if it names
    one; else raydom."""
    weights: str | None = None
    """Path or URL of the feature network's weights. Without it: the torch hub cache, then a download."""
    init: str | None = None
    """Where an optimising method begins, instead of at its own choice: content, meanstd, histogram, reinhard or macenko
    (the matched content), noise (nst), or colour (strotss, its paper's start: the style's mean colour and the content's
    finest detail)."""
    overview_px: int = 1024
    """Images with a longer side are stylised as a whole at this size first; blocks begin from there."""
    content_threshold: float = 0.4
    """Content score below which a stylised block counts as having lost its content."""
    on_content_loss: str = "flag"
    """What becomes of such a block: flag (told in its receipt), fallback (its pixels stay unstylised) or fail."""
    seed: int = 0
    """Seed of whatever is random."""
    generator: str | None = None
    """Folder of the training of cyclegan or drit."""
    direction: str = "target-to-source"
    """Of generators between two domains: target-to-source (the images are to look like those of the source) or
    source-to-target."""
    to_domain: str | None = None
    """Of drit: name of the domain to look like. Default: of two domains, what the direction says."""
    from_domain: str | None = None
    """Of drit: name of the domain that the images are of. It must be told where there are more than two that differ in
    their intensity range."""
    attribute: str = "mean"
    """Of drit: how the images are to look within the domain: mean (of its training images), sampled (drawn from them
    by the seed, the same for all images), or style (as the --style image)."""
    nst: NstConfig = field(default_factory=NstConfig)
    strotss: StrotssConfig = field(default_factory=StrotssConfig)
    analogy: AnalogyConfig = field(default_factory=AnalogyConfig)

    def __post_init__(self) -> None:
        known = ("content", "noise", "colour", *MATCHING, "macenko")
        require(self.init is None or self.init in known, f"init must be one of {', '.join(known)}; got {self.init!r}.")
        require(self.overview_px >= 32, f"overview_px must be >= 32; got {self.overview_px}.")
        require(
            0 <= self.content_threshold <= 1,
            f"content_threshold is a share of structure, 0 to 1; got {self.content_threshold}.",
        )
        require(
            self.on_content_loss in ("flag", "fallback", "fail"),
            f"on_content_loss must be flag, fallback or fail; got {self.on_content_loss!r}.",
        )
        require(self.direction in DIRECTIONS, f"direction must be {' or '.join(DIRECTIONS)}; got {self.direction!r}.")
        require(self.attribute in ATTRIBUTES, f"attribute must be {', '.join(ATTRIBUTES)}; got {self.attribute!r}.")
        require(
            self.to_domain is None or self.direction == DIRECTIONS[0],
            f"--direction {self.direction} has no effect with --to-domain {self.to_domain}. Leave one of them out.",
        )

    def without_effect(self, method: str) -> tuple[str, ...]:
        """The options given for generators that a method is not told."""
        usual = {"to_domain": None, "from_domain": None, "attribute": ATTRIBUTES[0], "direction": DIRECTIONS[0]}
        told = ("direction",) if method in TRAINED else ()
        return tuple(
            name for name, value in usual.items()
            if method != "drit" and name not in told and getattr(self, name) != value
        )  # fmt: skip

    def told(self, method: str) -> dict[str, Any]:
        """The options by name; those that a method is not told are as usual."""
        needless = (*self.without_effect(method), *(() if method in TRAINED else ("generator",)))
        usual = StyleOptions()
        return {
            one.name: getattr(usual if one.name in needless else self, one.name)
            for one in dataclasses.fields(StyleOptions)
        }

    def takes_style(self, method: str) -> bool:
        """Whether a method needs a style image."""
        return method != "none" and (method not in TRAINED or (method == "drit" and self.attribute == "style"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleConfig(StyleOptions):
    """Which method makes the images look like which style image."""

    method: str = "none"
    """none, meanstd, histogram, reinhard, macenko (H&E), nst, strotss, analogy, cyclegan or drit (with --generator), or
    package.module:function."""
    style: str | None = None
    """Path or URL of the style image, an image of the source domain. Methods with a --generator take none,
    but for drit with --attribute style."""

    def __post_init__(self) -> None:
        StyleOptions.__post_init__(self)  # super() does not find its class in dataclasses with slots
        require(
            self.method in METHODS or ":" in self.method,
            f"unknown style method {self.method!r}; choose one of {', '.join(METHODS)}, "
            "or name your own as package.module:function.",
        )
        trained = self.method in TRAINED
        require(
            not trained or self.generator is not None,
            f"method {self.method} needs its training: give --generator RUN, the folder of a finished "
            f"`raydom train {self.method}`.",
        )
        require(
            trained or self.generator is None,
            f"--generator {self.generator} has no effect with method {self.method}: give --method "
            f"{' or '.join(TRAINED)}.",
        )
        useless = [f"--{name.replace('_', '-')}" for name in self.without_effect(self.method)]
        require(not useless, f"{' and '.join(useless)} has no effect with method {self.method}. Leave it out.")
        require(
            not trained or self.style is None or self.takes_style(self.method),
            f"--style {self.style} has no effect with method {self.method}, which looks like what it was trained on. "
            f"{'Give --attribute style with it, or leave' if self.method == 'drit' else 'Leave'} it out.",
        )
        require(
            not self.takes_style(self.method) or self.style is not None,
            f"method {self.method} needs a style image: give --style IMAGE, an image of the domain to look like.",
        )
        require(
            self.method != "none" or self.style is None,
            f"--style {self.style} has no effect without a method: give --method, such as meanstd.",
        )

    def settings(self) -> dict[str, Any]:
        """What of these options the method's result depends on, as plain values."""
        known: dict[str, Any] = {"method": self.method}
        if self.on_content_loss != "flag":  # which changes no pixel
            known |= {"on_content_loss": self.on_content_loss, "content_threshold": self.content_threshold}
        if self.method in ("none", *MATCHING):
            return known
        if self.method == "macenko":
            return known | {"overview_px": self.overview_px}
        own = to_dict(self)
        if self.method in TRAINED:  # whose run is told by its content, not by where it lies
            known |= {name: own[name] for name in ("direction", "overview_px", "seed")}
            if self.method == "drit":
                known |= {name: own[name] for name in ("to_domain", "from_domain", "attribute")}
            return known
        shared = {name: own[name] for name in ("features", "init", "overview_px", "seed")}
        if ":" in self.method:  # it is given all of them
            return known | shared | {name: own[name] for name in ("weights", "nst", "strotss", "analogy")}
        return (
            known | shared | {self.method: to_dict(self.nst.settings()) if self.method == "nst" else own[self.method]}
        )
