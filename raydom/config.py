"""Typed configurations: what a run is, checked once, where it is made.

Importing this module is cheap (no numpy, torch or ray), so that ``raydom --help`` is quick. The command line, the
YAML files beside the jobs and the JSON beside every result all describe these classes.
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


def _require(ok: bool, message: str) -> None:
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
        _require(self.steps >= 0, f"nst.steps must be >= 0; got {self.steps}.")
        _require(self.optimizer in ("adam", "lbfgs"), f"nst.optimizer must be adam or lbfgs; got {self.optimizer!r}.")
        _require(
            self.init in ("content", "noise", "meanstd", "histogram", "reinhard"),
            f"nst.init must be content, noise, meanstd, histogram or reinhard; got {self.init!r}.",
        )
        style = self.style_ratio if self.style_weight is None else self.style_weight
        _require(
            style >= 0 and self.content_weight >= 0 and style + self.content_weight > 0,
            "nst.content_weight and nst.style_weight (or style_ratio) must be >= 0 and not both 0; "
            f"got {self.content_weight} and {style}.",
        )
        _require(self.learning_rate > 0, f"nst.learning_rate must be > 0; got {self.learning_rate}.")
        _require(self.overview_px >= 32, f"nst.overview_px must be >= 32; got {self.overview_px}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class StyleConfig:
    """Which method makes the images look like which style image."""

    method: str = "none"
    """none, meanstd, histogram, reinhard, nst, or package.module:function."""
    style: str | None = None
    """Path or URL of the style image, an image of the source domain."""
    nst: NstConfig = field(default_factory=NstConfig)

    def __post_init__(self) -> None:
        _require(
            self.method in METHODS or ":" in self.method,
            f"unknown style method {self.method!r}; choose one of {', '.join(METHODS)}, "
            "or name your own as package.module:function.",
        )
        _require(
            self.method == "none" or self.style is not None,
            f"method {self.method} needs a style image: give --style IMAGE, an image of the domain to look like.",
        )
        _require(
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
            _require(getattr(self, name) >= 1, f"unet.{name} must be >= 1; got {getattr(self, name)}.")
        _require(self.num_classes >= 2, f"unet.num_classes must be >= 2; got {self.num_classes}.")
        _require(self.norm in ("batch", "none"), f"unet.norm must be batch or none; got {self.norm!r}.")


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
        _require(
            self.steps is None or self.epochs is None,
            f"give --steps or --epochs, not both; got steps={self.steps}, epochs={self.epochs}.",
        )
        for name in ("steps", "epochs", "batch_size", "crop_px", "validate_every"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"{name} must be >= 1; got {value}.")
        _require(
            self.schedule in ("constant", "cosine"), f"schedule must be constant or cosine; got {self.schedule!r}."
        )
        _require(
            self.precision in ("float32", "bfloat16"), f"precision must be float32 or bfloat16; got {self.precision!r}."
        )
        _require(
            0 < self.validation_fraction < 1,
            f"validation_fraction must be between 0 and 1; got {self.validation_fraction}.",
        )
        _require(self.learning_rate > 0, f"learning_rate must be > 0; got {self.learning_rate}.")
        unknown = set(self.augment) - {"flip", "rotate", "intensity"}
        _require(not unknown, f"unknown augmentation {sorted(unknown)}; choose from flip, rotate, intensity.")


# ------------------------------------------------------------------------------------------------------- execution


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockConfig:
    """How an image is cut into blocks."""

    block_size: int = 512
    """Side of the square that a block writes, px; also the output's shard."""
    halo: int | None = None
    """Context read on each side, px. Default: the receptive field of the network."""

    def __post_init__(self) -> None:
        _require(
            self.block_size >= 16 and self.block_size % 16 == 0,
            f"block_size must be a multiple of 16 and >= 16; got {self.block_size}.",
        )
        _require(self.halo is None or self.halo >= 0, f"halo must be >= 0; got {self.halo}.")


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
        _require(self.workers is None or self.workers >= 1, f"workers must be >= 1; got {self.workers}.")
        _require(self.cpus_per_worker > 0, f"cpus_per_worker must be > 0; got {self.cpus_per_worker}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRunConfig(ClusterConfig):
    """Where and on what a training runs."""

    gpus_per_worker: float = 0.0
    """GPUs of a worker, fractions allowed."""

    def __post_init__(self) -> None:
        ClusterConfig.__post_init__(self)  # super() does not find its class in dataclasses with slots
        _require(self.gpus_per_worker >= 0, f"gpus_per_worker must be >= 0; got {self.gpus_per_worker}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig(TrainRunConfig):
    """Where and how a block job runs."""

    memory_gib: float | None = None
    """Memory that a worker may use for a block, GiB. Default: this machine's, shared by its CPUs."""
    retry_failed: bool = False
    """Run the failed and quarantined blocks of an earlier run again."""

    def __post_init__(self) -> None:
        TrainRunConfig.__post_init__(self)
        _require(self.memory_gib is None or self.memory_gib > 0, f"memory_gib must be > 0; got {self.memory_gib}.")


# --------------------------------------------------------------------------------------------------------- commands


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StylizeConfig:
    """Make the images of a collection look like a style image; writes a collection."""

    collection: str
    """Collection to stylise."""
    out: str
    """Collection to write."""
    style: StyleConfig
    images: ImageFilter = field(default_factory=ImageFilter)
    blocks: BlockConfig = field(default_factory=BlockConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentConfig:
    """Resample, normalise, stylise and segment the images of a collection; writes a collection of labels."""

    collection: str
    """Collection to segment."""
    model: str
    """Folder of the trained model; or threshold:VALUE, foreground being where pixels have at least that value."""
    out: str
    """Collection to write: probabilities and labels."""
    style: StyleConfig = field(default_factory=StyleConfig)
    pixel_size_um: float | None = field(default=None, metadata={"flag": "--pixel-size"})
    """Pixel size of the images, um, instead of the one they state."""
    scale: float | None = None
    """Resampling factor before the network, instead of the one that follows from the pixel sizes."""
    threshold: float | None = None
    """Foreground probability from which a pixel is labelled, instead of the model's."""
    images: ImageFilter = field(default_factory=ImageFilter)
    blocks: BlockConfig = field(default_factory=BlockConfig)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    """Score the labels of one collection against those of another; writes a table."""

    prediction: str
    """Collection with the predicted labels."""
    truth: str
    """Collection with the true labels; images are paired by their id."""
    label: str = "label"
    """Name of the true label."""
    mask: str | None = None
    """Label of the truth that marks what is scored, such as a field of view; pixels where it is 0 are left out."""
    by: str | None = None
    """Score each domain, split or group too."""
    out: str | None = None
    """Parquet file to write. Default: evaluation.parquet in the collection of predictions."""

    def __post_init__(self) -> None:
        _require(self.by in (None, "domain", "split", "group"), f"by must be domain, split or group; got {self.by!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """Segment a target collection with each model after each style method, and score them all."""

    source: str
    """Collection that the models were trained on; gives the style image when none is named."""
    target: str
    """Labelled collection to segment and score."""
    out: str
    """Folder for the predictions, comparison.parquet and comparison.png."""
    model: tuple[str, ...] = field(metadata={"repeat": True})
    """Folder of a trained model; may be given several times."""
    methods: tuple[str, ...] = field(default=METHODS, metadata={"comma": True})
    """Style methods, with commas between; none is always among them."""
    style: str | None = None
    """Style image. Default: an image drawn from the source collection."""
    label: str = "label"
    """Label of the target collection that holds the truth."""
    mask: str | None = None
    """Label of the target collection that marks what is scored, such as a field of view."""
    pixel_size_um: float | None = field(default=None, metadata={"flag": "--pixel-size"})
    """Pixel size of the target images, um, instead of the one they state."""
    scale: float | None = None
    """Resampling factor of the target images before the network."""
    seed: int = 0
    """Seed of the draw of the style image."""
    skip_unavailable: bool = False
    """Leave out a method whose weights cannot be had (its row says why) instead of refusing the comparison."""
    nst: NstConfig = field(default_factory=NstConfig)
    images: ImageFilter = field(default_factory=ImageFilter)
    blocks: BlockConfig = field(default_factory=BlockConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        _require(len(self.model) > 0, "compare needs at least one --model RUN.")
        for method in self.methods:
            _require(
                method in METHODS or ":" in method,
                f"unknown style method {method!r}; choose from {', '.join(METHODS)}, or package.module:function.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoConfig:
    """Tell what a collection holds."""

    collection: str = field(metadata={"positional": True})
    """Collection to describe."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackConfig:
    """Pack the images of a collection, or crops of them, into few Parquet files; writes a collection."""

    collection: str = field(metadata={"positional": True})
    """Collection to pack."""
    out: str
    """Collection to write; there must be nothing yet."""
    crop_px: int | None = field(default=None, metadata={"flag": "--crop"})
    """Cut images into squares of this side, px, each an image of its own; the last ones overlap their neighbours, to be
    of full size. Default: images stay whole."""
    images: ImageFilter = field(default_factory=ImageFilter)
    quiet: bool = False
    """No progress."""

    def __post_init__(self) -> None:
        _require(self.crop_px is None or self.crop_px >= 1, f"crop must be >= 1 px; got {self.crop_px}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Run the main job on two small synthetic domains, offline, in a few minutes."""

    out: str = "raydom-demo"
    """Folder for everything that the demo makes; made anew."""
    steps: int = 200
    """Training steps."""
    nst: NstConfig = field(default_factory=lambda: NstConfig(features="squeezenet1_1"))
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedConfig:
    """Training of a segmentation network on a labelled collection."""

    collection: str
    """Collection with labelled images. Its images of split test are not used; those of split val validate."""
    out: str
    """Folder of the model run."""
    network: str = "unet"
    """unet, or package.module:function."""
    base_channels: int = 32
    """Channels of the network's first level. The paper has 64; 32 train four times as fast and suffice for most."""
    depth: int = 4
    """Number of poolings of the network."""
    norm: str = "batch"
    """batch or none."""
    label: str = "label"
    """Name of the labels to learn."""
    num_classes: int = 2
    """Including the background. With two, every label above 0 is foreground."""
    mask: str | None = None
    """Name of the labels whose zero pixels count for nothing, such as a field of view."""
    images: ImageFilter = field(default_factory=ImageFilter)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: TrainRunConfig = field(default_factory=lambda: TrainRunConfig(workers=1))

    def __post_init__(self) -> None:
        _require(self.num_classes >= 2, f"num_classes must be >= 2; got {self.num_classes}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestConfig:
    """Read image files, and labels that belong to them, into a collection. Up to 32 files are read in this process,
    more on Ray; with --address, RAY_ADDRESS or --workers, any number is."""

    source: tuple[str, ...] = field(metadata={"positional": True})
    """Files, folders (the files directly in them) and globs (quoted; ** for folders below), local or any fsspec URL.
    FILE.h5:/DATASET names an array of an HDF5 file, FILE.parquet:/COLUMN the images of a Parquet file (an image a row,
    encoded or as tensors)."""
    out: str
    """Collection to make or to extend."""
    labels: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """NAME=GLOB_OR_DIR: label files, paired with the images by stem. Without NAME= they are named label. A glob of
    folders (ID/masks or masks/ID) reads a mask an object from each. A JSON file has annotations as COCO's. A column of
    a Parquet file has the label of each row, in the same order as the images."""
    invert_labels: bool = False
    """Swap the two values of binary labels."""
    ignore_value: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """NAME=N (or N, for the label called label): pixels of this value do not count. They become 0, and a further label
    NAME-valid is 0 there and 1 elsewhere, for --mask of train and evaluate."""
    boundary_from_instances: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """NAME=PX (or PX, for the label called label): a further label NAME-boundary is 1 within PX of pixels of another
    object, or of background."""
    domain: str | None = None
    """Domain of these images."""
    split: str | None = None
    """Split of these images, such as train, val or test."""
    group: str | None = None
    """Regular expression searched in each file's path: its first group (or the whole match) is the image's group."""
    column: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """NAME=REGEX: a column of the manifest, for --keep: the first group (or the whole match) in each file's path."""
    pixel_size_um: float | None = field(default=None, metadata={"flag": "--pixel-size"})
    """Pixel size, um, instead of the one that the files state."""
    pages: str = "planes"
    """What the pages of a TIFF that does not say so are: planes (an image each) or channels (of one image)."""
    axes: str | None = None
    """A letter an axis of HDF5 datasets and of tensors, such as zyx or cyx: t, z (an image a plane), c, y and x.
    Default: what the dataset says, else yx, or yxc if the last axis has at most four entries, or zyx (of tensors: cyx
    if the first has at most four)."""
    fps: float | None = None
    """Frames of a video to take a second, chosen by the times at which they are shown. Default: every frame."""
    index_only: bool = False
    """The sources are OME-Zarr images (0.4 or 0.5): list them where they are, without a copy."""
    run: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        _require(len(self.source) > 0, "ingest needs at least one SOURCE: a file, a folder or a glob.")
        _require(
            self.pixel_size_um is None or self.pixel_size_um > 0,
            f"pixel_size_um must be > 0; got {self.pixel_size_um}.",
        )
        _require(self.pages in ("planes", "channels"), f"pages must be planes or channels; got {self.pages!r}.")
        _require(
            self.axes is None
            or (set("yx") <= set(self.axes) <= set("tzcyx") and len(set(self.axes)) == len(self.axes)),
            f"axes must be y, x and some of t, z and c, each once; got {self.axes!r}.",
        )
        _require(self.fps is None or self.fps > 0, f"fps must be > 0; got {self.fps}.")
        ignored, boundaries = self.ignored_values(), self.boundary_widths_px()
        _require(all(width >= 1 for width in boundaries.values()), f"boundaries are at least 1 px; got {boundaries}.")
        _require(
            not (self.index_only and (ignored or boundaries)),
            "with index_only nothing is written; leave out ignore_value and boundary_from_instances.",
        )
        _require(
            not (self.index_only and (self.labels or self.invert_labels)),
            "with index_only the labels are those inside the OME-Zarr images; leave out labels and invert_labels.",
        )
        for option, pattern in {"group": self.group or "", **self.column_patterns()}.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"{option} is no regular expression: {pattern!r} ({error}).") from error

    def column_patterns(self) -> dict[str, str]:
        """By the name of each further column, the regular expression that gives its values."""
        found: dict[str, str] = {}
        for entry in self.column:
            name, _, pattern = entry.partition("=")
            _require(
                bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name) and pattern),
                f"column is NAME=REGEX, and the name has letters, digits and _ . -; got {entry!r}.",
            )
            _require(name not in found, f"column {name} is given twice.")
            found[name] = pattern
        return found

    def ignored_values(self) -> dict[str, int]:
        """By label name, the value that does not count."""
        return {name: int(value) for name, value in _named_numbers("ignore_value", self.ignore_value).items()}

    def boundary_widths_px(self) -> dict[str, float]:
        """By label name, how far a boundary reaches on either side, px."""
        return _named_numbers("boundary_from_instances", self.boundary_from_instances)


def _named_numbers(option: str, entries: tuple[str, ...]) -> dict[str, float]:
    """``NAME=NUMBER`` by name; without a name, it is that of the label called ``label``."""
    found: dict[str, float] = {}
    for entry in entries:
        name, _, number = entry.rpartition("=")
        name = name or "label"
        _require(bool(re.fullmatch(r"-?\d+(\.\d+)?", number)), f"{option} is NAME=NUMBER or a number; got {entry!r}.")
        _require(option != "ignore_value" or "." not in number, f"ignore_value is a whole number; got {entry!r}.")
        _require(name not in found, f"{option} is given twice for label {name}.")
        found[name] = float(number)
    return found


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
    _require(not missing, f"missing setting {', '.join(prefix + name for name in missing)}.")
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
