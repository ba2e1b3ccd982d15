"""What the commands are told that segment and stylise block by block, and score what came out."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydom.config import (
    METHODS,
    TRAINED,
    BlockConfig,
    ImageFilter,
    InstanceConfig,
    PredictionConfig,
    RunConfig,
    StyleConfig,
    StyleOptions,
    require,
)


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
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    instances: InstanceConfig = field(default_factory=InstanceConfig)
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
    prediction_label: str | None = None
    """Name of the predicted label. Default: that of the true one, or the only one that there is."""
    mask: str | None = None
    """Label of the truth that marks what is scored, such as a field of view; pixels where it is 0 are left out."""
    by: str | None = None
    """Column of the truth's manifest (domain, split, group, dtype or one that was added): score the images of each of
    its values too."""
    kind: str | None = None
    """What the labels are, instead of what the manifests say: binary (pixels are scored), instance (objects too) or
    semantic (classes too)."""
    zero: str = "boundary"
    """What the 0 of a true label of objects means to scores of partitions (Rand errors, variation of information,
    CREMI): boundary (or not annotated: these pixels are left out) or background (an object like others). Scores of
    matched objects take it for what is no object, and pixels that a predicted object has there count as wrong."""
    bootstrap: int = 1000
    """Resamples for the 95 % intervals of scores over images, or over groups where images have one; 0 for none."""
    seed: int = 0
    """Of the resamples."""
    out: str | None = None
    """Parquet file to write. Default: evaluation.parquet in the collection of predictions."""

    def __post_init__(self) -> None:
        require(
            self.kind in (None, "binary", "instance", "semantic"),
            f"kind must be binary, instance or semantic; got {self.kind!r}.",
        )
        require(self.zero in ("boundary", "background"), f"zero must be boundary or background; got {self.zero!r}.")
        require(self.bootstrap >= 0, f"bootstrap must be >= 0; got {self.bootstrap}.")


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
    """Folder of a trained model, or threshold:VALUE; may be given several times."""
    methods: tuple[str, ...] = field(
        default=tuple(method for method in METHODS if method not in ("macenko", *TRAINED)), metadata={"comma": True}
    )
    """Style methods, with commas between; none is always among them. Default: all but macenko, which takes only H&E,
    and cyclegan and drit, which need --generator."""
    style: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Style image; may be given several times. Default: an image drawn from the source collection by the seed."""
    label: str = "label"
    """Label of the target collection that holds the truth."""
    mask: str | None = None
    """Label of the target collection that marks what is scored, such as a field of view."""
    pixel_size_um: float | None = field(default=None, metadata={"flag": "--pixel-size"})
    """Pixel size of the target images, um, instead of the one they state."""
    scale: float | None = None
    """Resampling factor of the target images before the network."""
    skip_unavailable: bool = False
    """Leave out a method whose weights cannot be had (its row says why) instead of refusing the comparison."""
    prediction: PredictionConfig = field(default_factory=PredictionConfig)
    instances: InstanceConfig = field(default_factory=InstanceConfig)
    options: StyleOptions = field(default_factory=StyleOptions)
    images: ImageFilter = field(default_factory=ImageFilter)
    blocks: BlockConfig = field(default_factory=BlockConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        require(len(self.model) > 0, "compare needs at least one --model RUN.")
        for method in self.methods:
            require(
                method in METHODS or ":" in method,
                f"unknown style method {method!r}; choose from {', '.join(METHODS)}, or package.module:function.",
            )
        require(
            self.options.generator is None or any(method in TRAINED for method in self.methods),
            f"--generator {self.options.generator} has no effect with these methods: add {' or '.join(TRAINED)} to "
            "--methods.",
        )
        unused = set.intersection(*({*self.options.without_effect(method)} for method in ("none", *self.methods)))
        useless = [f"--{name.replace('_', '-')}" for name in sorted(unused)]
        require(not useless, f"{' and '.join(useless)} has no effect with these methods. Leave it out.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Run the main job on two small synthetic domains, offline, in a few minutes."""

    out: str = "raydom-demo"
    """Folder for everything that the demo makes; made anew."""
    steps: int = 200
    """Training steps."""
    options: StyleOptions = field(default_factory=StyleOptions)
    run: RunConfig = field(default_factory=RunConfig)
