"""Typed configurations: what a run is made of, checked once, where it is made.

What the commands share; ``raydom.commands`` has the configuration of each. Importing this module is cheap (no numpy,
torch or ray), so that ``raydom --help`` is quick. The command line, the YAML files beside the jobs and the JSON beside
every result all describe these classes.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raydom.errors import ConfigError

METHODS = ("none", "meanstd", "histogram", "reinhard", "nst")
FEATURES = ("vgg19", "vgg16", "squeezenet1_1")


def require(ok: bool, message: str) -> None:
    """Raises a ConfigError with this message unless ``ok``."""
    if not ok:
        raise ConfigError(message)


# ---------------------------------------------------------------------------------------------------------- style


@dataclass(frozen=True, slots=True, kw_only=True)
class NstConfig:
    """Neural style transfer of Gatys, Ecker and Bethge 2016 (arXiv:1508.06576)."""

    features: str = "vgg19"
    """Feature network: vgg19, vgg16, squeezenet1_1, or encoder:RUN for the encoder of a trained segmenter."""
    weights: str | None = None
    """Path or URL of the feature network's weights. Without it: the torch hub cache, then a download."""
    style_layers: tuple[str, ...] = ()
    """Layers whose Gram matrices carry the style. Empty: the network's default, its first (the paper's, in VGG:
    relu1_1, relu2_1, relu3_1, relu4_1, relu5_1)."""
    content_layers: tuple[str, ...] = ()
    """Layers whose features carry the content. Empty: the network's default, its first (the paper's: relu4_2)."""
    content_weight: float = 1.0
    """Weight of the content loss (the paper's alpha), stated for an image of 512 x 512 px."""
    style_weight: float | None = None
    """Weight of the style loss (the paper's beta). None: set from the style image by style_ratio, since the scale of
    the losses differs by orders of magnitude between feature networks."""
    style_ratio: float = 10.0
    """Style against content when style_weight is None: at 1, losing all features of the style image would cost as much
    in style as in content (at content_weight 1)."""
    steps: int = 40
    """Optimiser steps."""
    optimizer: str = "adam"
    """adam or lbfgs."""
    learning_rate: float = 0.02
    """Step size of Adam, in units of the intensity range; L-BFGS uses 1."""
    init: str = "meanstd"
    """Starting image: content, meanstd, histogram or reinhard (the matched content), or noise."""
    overview_px: int = 1024
    """Images with a longer side are stylised at this size; finer detail is added from the matched content."""
    seed: int = 0
    """Seed of the noise start."""

    def __post_init__(self) -> None:
        require(self.steps >= 0, f"nst.steps must be >= 0; got {self.steps}.")
        require(self.optimizer in ("adam", "lbfgs"), f"nst.optimizer must be adam or lbfgs; got {self.optimizer!r}.")
        require(
            self.init in ("content", "noise", "meanstd", "histogram", "reinhard"),
            f"nst.init must be content, noise, meanstd, histogram or reinhard; got {self.init!r}.",
        )
        style = self.style_ratio if self.style_weight is None else self.style_weight
        require(
            style >= 0 and self.content_weight >= 0 and style + self.content_weight > 0,
            "nst.content_weight and nst.style_weight (or style_ratio) must be >= 0 and not both 0; "
            f"got {self.content_weight} and {style}.",
        )
        require(self.learning_rate > 0, f"nst.learning_rate must be > 0; got {self.learning_rate}.")
        require(self.overview_px >= 32, f"nst.overview_px must be >= 32; got {self.overview_px}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleConfig:
    """Which method makes the images look like which style image."""

    method: str = "none"
    """none, meanstd, histogram, reinhard, nst, or package.module:function."""
    style: str | None = None
    """Path or URL of the style image, an image of the source domain."""
    nst: NstConfig = field(default_factory=NstConfig)

    def __post_init__(self) -> None:
        require(
            self.method in METHODS or ":" in self.method,
            f"unknown style method {self.method!r}; choose one of {', '.join(METHODS)}, "
            "or name your own as package.module:function.",
        )
        require(
            self.method == "none" or self.style is not None,
            f"method {self.method} needs a style image: give --style IMAGE, an image of the domain to look like.",
        )
        require(
            self.method != "none" or self.style is None,
            f"--style {self.style} has no effect without a method: give --method, such as meanstd.",
        )


# ------------------------------------------------------------------------------------------------------- networks


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """The U-Net of Ronneberger et al. 2015 (arXiv:1505.04597), with same padding."""

    in_channels: int = 1
    num_classes: int = 2
    """Including the background. Two classes have one output channel (a sigmoid), more have one each (a softmax)."""
    base_channels: int = 64
    """Channels of the first level; each level down has twice as many."""
    depth: int = 4
    """Number of poolings. The total stride is 2 ** depth."""
    norm: str = "batch"
    """batch or none (the paper has none)."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "base_channels", "depth"):
            require(getattr(self, name) >= 1, f"unet.{name} must be >= 1; got {getattr(self, name)}.")
        require(self.num_classes >= 2, f"unet.num_classes must be >= 2; got {self.num_classes}.")
        require(self.norm in ("batch", "none"), f"unet.norm must be batch or none; got {self.norm!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What inference must know of a trained model; stored in the ``config.json`` of its run."""

    network: str
    """Name of the network, such as unet."""
    unet: UNetConfig
    channels: tuple[str, ...]
    """Names of the input channels."""
    low: float
    high: float
    """Intensities, as fractions of the legal range of the dtype, that the network sees as 0 and 1."""
    pixel_size_um: float | None
    """Pixel size of the training images; None if they did not state it."""
    total_stride: int
    """Input sides and the starts of read regions are multiples of this, px."""
    receptive_field_px: int
    """How far, to each side, an output pixel looks, px: the smallest exact halo."""
    num_classes: int
    threshold: float = 0.5
    """Foreground probability from which a pixel is labelled (two classes)."""
    label: str = "label"
    """Name of the label that the model was trained on and writes."""


# ------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of the training loop that do not depend on the algorithm."""

    steps: int | None = None
    """Optimiser steps, instead of epochs."""
    epochs: int | None = None
    """Passes over the training images, 50 by default; an epoch is ceil(images / (batch_size * workers)) steps of
    random crops, but at least 20."""
    batch_size: int = 8
    """Crops per worker and step."""
    crop_px: int = 128
    """Side of the square training crops, px."""
    learning_rate: float = 1.0e-3
    """Peak learning rate of Adam."""
    schedule: str = "cosine"
    """constant or cosine (to 0 at the last step)."""
    weight_decay: float = 1.0e-4
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0 switches clipping off."""
    precision: str = "float32"
    """float32 or bfloat16 (mixed precision)."""
    validation_fraction: float = 0.2
    """Share of the images kept for validation, whole groups at a time."""
    validate_every: int = 100
    """Steps between validations, each of which writes a checkpoint."""
    augment: tuple[str, ...] = ("flip", "rotate", "intensity")
    """Augmentations of the training crops."""
    seed: int = 0

    def __post_init__(self) -> None:
        require(
            self.steps is None or self.epochs is None,
            f"give --steps or --epochs, not both; got steps={self.steps}, epochs={self.epochs}.",
        )
        for name in ("steps", "epochs", "batch_size", "crop_px", "validate_every"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be >= 1; got {value}.")
        require(self.schedule in ("constant", "cosine"), f"schedule must be constant or cosine; got {self.schedule!r}.")
        require(
            self.precision in ("float32", "bfloat16"), f"precision must be float32 or bfloat16; got {self.precision!r}."
        )
        require(
            0 < self.validation_fraction < 1,
            f"validation_fraction must be between 0 and 1; got {self.validation_fraction}.",
        )
        require(self.learning_rate > 0, f"learning_rate must be > 0; got {self.learning_rate}.")
        unknown = set(self.augment) - {"flip", "rotate", "intensity"}
        require(not unknown, f"unknown augmentation {sorted(unknown)}; choose from flip, rotate, intensity.")


# ------------------------------------------------------------------------------------------------------- execution


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockConfig:
    """How an image is cut into blocks."""

    block_size: int = 512
    """Side of the square that a block writes, px; also the output's shard."""
    halo: int | None = None
    """Context read on each side, px. Default: the receptive field of the network."""

    def __post_init__(self) -> None:
        require(
            self.block_size >= 16 and self.block_size % 16 == 0,
            f"block_size must be a multiple of 16 and >= 16; got {self.block_size}.",
        )
        require(self.halo is None or self.halo >= 0, f"halo must be >= 0; got {self.halo}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Where a job runs. Nothing here changes the result."""

    address: str | None = None
    """Ray cluster to join (as in ray.init). Default: RAY_ADDRESS, else an embedded Ray for this command."""
    workers: int | None = None
    """Number of workers. Default: as many as the cluster has room for."""
    cpus_per_worker: float = 1.0
    """CPUs of a worker; torch uses as many threads."""
    serial: bool = False
    """Run in this process without Ray: the debugger and the test oracle."""
    quiet: bool = False
    """No progress."""

    def __post_init__(self) -> None:
        require(self.workers is None or self.workers >= 1, f"workers must be >= 1; got {self.workers}.")
        require(self.cpus_per_worker > 0, f"cpus_per_worker must be > 0; got {self.cpus_per_worker}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRunConfig(ClusterConfig):
    """Where and on what a training runs."""

    gpus_per_worker: float = 0.0
    """GPUs of a worker, fractions allowed."""

    def __post_init__(self) -> None:
        ClusterConfig.__post_init__(self)  # super() does not find its class in dataclasses with slots
        require(self.gpus_per_worker >= 0, f"gpus_per_worker must be >= 0; got {self.gpus_per_worker}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(TrainRunConfig):
    """Where and how a block job runs."""

    memory_gib: float | None = None
    """Memory that a worker may use for a block, GiB. Default: this machine's, shared by its CPUs."""
    retry_failed: bool = False
    """Run the failed and quarantined blocks of an earlier run again."""

    def __post_init__(self) -> None:
        TrainRunConfig.__post_init__(self)
        require(self.memory_gib is None or self.memory_gib > 0, f"memory_gib must be > 0; got {self.memory_gib}.")


# ----------------------------------------------------------------------------------------------- choice of images


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a column of a manifest, such as ``cell_type=A172,BT474`` or ``height>=500``."""

    column: str
    operator: str
    """``=`` or ``!=`` (one of the values, none of them), or ``>=``, ``<=``, ``>`` or ``<`` (of numbers)."""
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Condition:
        """The condition that was written so.

        Raises:
            ConfigError: If it is none.
        """
        match = re.fullmatch(r"\s*([^=!<>]+?)\s*(!=|>=|<=|=|>|<)\s*([^=!<>]+?)\s*", text)
        values = tuple(value.strip() for value in match[3].split(",")) if match else ()
        if match is None or "" in values or (match[2] not in ("=", "!=") and len(values) > 1):
            raise ConfigError(
                f"keep is a condition on a column, such as cell_type=A172,BT474, split!=test or 'height>=500'; "
                f"got {text!r}."
            )
        return cls(match[1], match[2], values)

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{','.join(self.values)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFilter:
    """Which images of a collection are meant; without a condition, all."""

    domain: str | None = None
    """Only images of this domain."""
    split: str | None = None
    """Only images of this split."""
    group: str | None = None
    """Only images of this group."""
    keep: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Only images that fulfil this condition on a column of the manifest: COLUMN=VALUE,VALUE, COLUMN!=VALUE, or >=, <=,
    > and < with a number ('height>=500'; height, width and num_channels are columns as well). Several must all hold. An
    image without a value fulfils none but !=."""

    def __post_init__(self) -> None:
        for condition in self.keep:
            Condition.parse(condition)

    def settings(self) -> dict[str, Any]:
        """What is asked for, as plain JSON values. None where nothing is: so a run that began before a further
        condition was known can go on."""
        return {name: value or None for name, value in to_dict(self).items()}


# ------------------------------------------------------------------------------------------ reading, writing, hashing


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values (tuples become lists)."""
    return typing.cast("dict[str, Any]", json.loads(json.dumps(config, default=_fields)))


def _fields(value: Any) -> dict[str, Any]:
    """One level of a dataclass: ``asdict`` copies every number in it, which is slow for the statistics of images."""
    if not dataclasses.is_dataclass(value):
        raise TypeError(f"{type(value).__name__} is no plain JSON value: {value!r}")
    return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}


T = typing.TypeVar("T")


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """The configuration that ``to_dict`` was given.

    Raises:
        ConfigError: For an unknown field (naming the nearest known one) or a missing one.
    """
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    prefix = where + "." if where else ""
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}."
            raise ConfigError(f"unknown setting {prefix}{name}; {hint}")
    missing = [
        name
        for name, f in known.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    require(not missing, f"missing setting {', '.join(prefix + name for name in missing)}.")
    return cls(**{name: _convert(hints[name], value, prefix + name) for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    """JSON lists become tuples and JSON objects become configurations, as the type hint says."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if isinstance(value, Mapping):
        for option in options:
            if dataclasses.is_dataclass(option):
                return from_dict(typing.cast("type[Any]", option), value, where)
    if isinstance(value, list | tuple):
        for option in options:
            if typing.get_origin(option) is tuple:
                if all(type(item) in (float, int, str, bool, types.NoneType) for item in value):
                    return tuple(value)
                inner = typing.get_args(option)[0]
                return tuple(_convert(inner, item, where) for item in value)
    return value


def fingerprint(*parts: Any) -> str:
    """A short hash of plain values and configurations: equal exactly when they are equal."""
    plain = [to_dict(part) if dataclasses.is_dataclass(part) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:20]
