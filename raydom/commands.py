"""What each command of the command line is told: a class a command, whose fields are its options.

Their docstrings are the help texts. Importing this module is cheap, as that of ``raydom.config``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from raydom.config import (
    METHODS,
    TRAINED,
    BlockConfig,
    CellConfig,
    ClusterConfig,
    DisentangledConfig,
    DritLossConfig,
    GeneratorConfig,
    ImageFilter,
    InstanceConfig,
    MaskRCNNConfig,
    NetworkConfig,
    PredictionConfig,
    RunConfig,
    StyleConfig,
    StyleOptions,
    TrainConfig,
    TrainRunConfig,
    require,
)
from raydom.errors import ConfigError

BALANCED = "balanced"
"""Weights of classes that follow from how often each is seen."""


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
    of full size. Default: images stay whole, and those of different sizes lie in different files, so that many sizes
    make many files."""
    images: ImageFilter = field(default_factory=ImageFilter)
    quiet: bool = False
    """No progress."""

    def __post_init__(self) -> None:
        require(self.crop_px is None or self.crop_px >= 1, f"crop must be >= 1 px; got {self.crop_px}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDomainsConfig:
    """Find the domains of a collection that has none: cluster its images by hue, saturation and value, and write the
    clusters into the domain column of its manifest (cluster_1 is the largest), with domains.parquet, and domains.png
    to look at."""

    collection: str = field(metadata={"positional": True})
    """Collection whose images are clustered."""
    clusters: int = 6
    """Number of clusters."""
    out: str | None = None
    """New collection, which lists the same images where they are, with their clusters. Default: the column is written
    into the manifest of the collection itself."""
    clahe: bool = False
    """Equalise local contrast first (CLAHE), for fluorescence images that are dark as a whole."""
    overwrite: bool = False
    """Replace domains that there are; they are kept in the column former_domain."""
    undo: bool = False
    """Put back the domains that clusters replaced (or none, where there were none), and do nothing else."""
    seed: int = 0
    """Of the starts of K-means."""
    workers: int | None = None
    """Threads that read images. Default: 8."""
    quiet: bool = False
    """No progress."""

    def __post_init__(self) -> None:
        require(self.clusters >= 2, f"clusters must be >= 2; got {self.clusters}.")
        require(self.workers is None or self.workers >= 1, f"workers must be >= 1; got {self.workers}.")
        require(0 <= self.seed < 2**32, f"seed must be from 0 to 2**32 - 1; got {self.seed}.")
        require(
            not (self.undo and (self.out or self.overwrite or self.clahe)),
            "undo puts former domains back and clusters nothing; leave out out, overwrite and clahe.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesizeConfig:
    """Draw images of procedural cells with their instances, in any number; writes a collection. The same command
    completes an interrupted one, and with more images extends it. Up to 500 images are drawn in this process, more on
    Ray; with --address, RAY_ADDRESS or --workers, any number is."""

    out: str
    """Collection to make or to complete."""
    images: int
    """Number of images."""
    cells: CellConfig = field(default_factory=CellConfig)
    pixel_size_um: float | None = field(default=None, metadata={"flag": "--pixel-size"})
    """Pixel size that the images are said to have, um."""
    domain: str | None = None
    """Domain of these images."""
    split: str | None = None
    """Split of these images, such as train, val or test."""
    run: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        require(self.images >= 1, f"images must be >= 1; got {self.images}.")
        require(
            self.pixel_size_um is None or self.pixel_size_um > 0,
            f"pixel_size_um must be > 0; got {self.pixel_size_um}.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """Run the main job on two small synthetic domains, offline, in a few minutes."""

    out: str = "raydom-demo"
    """Folder for everything that the demo makes; made anew."""
    steps: int = 200
    """Training steps."""
    options: StyleOptions = field(default_factory=StyleOptions)
    run: RunConfig = field(default_factory=RunConfig)


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which network is trained, and on which labels."""

    network: str = "unet"
    """unet, u2net, u2netp, unetplusplus, deeplabv3, deeplabv3plus, hrnet_w18, hrnet_w30, hrnet_w48, maskrcnn, or
    package.module:function."""
    output: str | None = None
    """What the network tells of each pixel: classes, or for instances boundary (objects and their borders) or distance
    (objects and the relative distance to their border). Default: classes; maskrcnn tells objects."""
    base_channels: int = 32
    """Channels of the first level of unet. The paper has 64; 32 train four times as fast and suffice for most."""
    depth: int = 4
    """Number of poolings of unet and unetplusplus."""
    norm: str = "batch"
    """Of unet: batch or none."""
    encoder: str = "resnet34"
    """Of unetplusplus, deeplabv3 and deeplabv3plus: an encoder of segmentation-models-pytorch, or tu-NAME for one of
    timm; of maskrcnn: resnet18, resnet34 or resnet50."""
    weights: str | None = None
    """Pretrained weights of the encoder: imagenet, or a state dict of it as .safetensors or .pth. Default: random ones.
    """
    label: str = "label"
    """Name of the labels to learn."""
    num_classes: int = 2
    """Including the background. With two, every label above 0 is foreground."""
    class_weights: tuple[str, ...] = field(default=(), metadata={"comma": True})
    """How much a pixel of each class weighs in the cross-entropy, with commas between, the background first; or
    balanced: so much that all classes weigh the same in the training images. Default: all pixels weigh the same."""
    mask: str | None = None
    """Name of the labels whose zero pixels count for nothing, such as a field of view."""
    generator: str | None = None
    """With --augment cyclegan or drit: the run of that training, whose images crops of the source are replaced by."""
    augment_collection: tuple[str, ...] = field(default=(), metadata={"repeat": True})
    """Collection with the same images as the source, stylised, whose crops replace the source's; may be given several
    times."""
    augment_share: float | None = None
    """Share of the source's crops that are replaced by those of the generator or of the collections. Default: 0.5."""

    def check_restyling(self, augment: tuple[str, ...]) -> None:
        """Refuse a generator that is not among the augmentations, or one that is missing.

        Raises:
            ConfigError: Saying which option is missing.
        """
        named = [name for name in TRAINED if name in augment]
        require(
            not named or self.generator is not None,
            f"--augment {' '.join(named)} needs --generator RUN, the folder of a finished "
            f"`raydom train {' or '.join(named)}`.",
        )
        require(
            bool(named) or self.generator is None,
            f"--generator {self.generator} has no effect: name its algorithm, cyclegan or drit, in --augment.",
        )
        share = self.augment_share
        require(share is None or 0 < share <= 1, f"augment_share must be above 0 and at most 1; got {share}.")
        require(
            share is None or self.generator is not None or bool(self.augment_collection),
            f"--augment-share {share} has no effect: give --generator RUN or --augment-collection D.",
        )

    def check_network(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: For settings that do not fit each other.
        """
        network = self.network_config(in_channels=1)  # which checks them
        if not self.class_weights:
            return
        require(network.output == "classes", f"class_weights are for output classes; got output {network.output}.")
        require(
            self.class_weights == (BALANCED,)
            or (len(self.class_weights) == self.num_classes and all(map(_is_positive, self.class_weights))),
            f"class_weights are balanced, or {self.num_classes} numbers > 0, one a class; "
            f"got {','.join(map(str, self.class_weights))}.",
        )

    def network_config(self, in_channels: int) -> NetworkConfig:
        """The network for images of so many channels."""
        return NetworkConfig(
            name=self.network,
            in_channels=in_channels,
            num_classes=self.num_classes,
            output=self.output or ("objects" if self.network == "maskrcnn" else "classes"),
            base_channels=self.base_channels,
            depth=self.depth,
            norm=self.norm,
            encoder=self.encoder,
        )


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(NetworkOptions):
    """Training of a segmentation network on a labelled collection."""

    collection: str
    """Collection with labelled images. Its images of split test are not used; those of split val validate."""
    out: str
    """Folder of the model run."""
    find_lr: bool = False
    """Only try rising learning rates on the first batches, tell the losses and suggest one; nothing is written."""
    maskrcnn: MaskRCNNConfig = field(default_factory=MaskRCNNConfig)
    images: ImageFilter = field(default_factory=ImageFilter)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: TrainRunConfig = field(default_factory=lambda: TrainRunConfig(workers=1))

    def __post_init__(self) -> None:
        self.check_network()
        self.check_restyling(self.train.augment)

    def network_config(self, in_channels: int) -> NetworkConfig:
        """The network for images of so many channels."""
        return replace(super().network_config(in_channels), maskrcnn=self.maskrcnn)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFilter(ImageFilter):
    """Which images of the target are meant; without a condition, all."""


@dataclass(frozen=True, kw_only=True)
class DomainsConfig:
    """Where the images of a source and of a target are."""

    source: str | None = None
    """Collection of the source, domain 0."""
    target: str | None = None
    """Collection of the target, domain 1. Its images of split test are not used."""
    collection: str | None = None
    """One collection of both instead, told apart by its column domain."""
    source_domain: str | None = None
    """With --collection: the domain that is the source."""
    target_domain: str | None = None
    """With --collection: the domain that is the target."""
    out: str
    """Folder of the model run."""
    images: ImageFilter = field(default_factory=ImageFilter)
    target_images: TargetFilter = field(default_factory=TargetFilter)
    sample_every: int | None = None
    """Draw what is made now every so many steps, as pictures in OUT/samples."""
    run: TrainRunConfig = field(default_factory=lambda: TrainRunConfig(workers=1))

    def check_domains(self) -> None:
        """Refuse what tells no domains.

        Raises:
            ConfigError: For too much or too little.
        """
        if self.collection is not None:
            require(
                self.source is None and self.target is None,
                "give --source and --target, or --collection with --source-domain and --target-domain; not both.",
            )
            return
        require(
            self.source is not None and self.target is not None,
            "which domains? Give --source C1 --target C2, or --collection C with --source-domain and --target-domain.",
        )
        require(
            self.source_domain is None and self.target_domain is None,
            "--source-domain and --target-domain choose from one --collection; of two, choose by --domain and "
            "--target-images.domain.",
        )

    def pair(self) -> tuple[tuple[str, str, ImageFilter], tuple[str, str, ImageFilter]]:
        """Name, collection and images of the source and of the target.

        Raises:
            ConfigError: If one collection holds both and it is not said which is which.
        """
        self.check_domains()
        if self.collection is None:
            return ("source", str(self.source), self.images), ("target", str(self.target), self.target_images)
        if self.source_domain is None or self.target_domain is None or self.source_domain == self.target_domain:
            raise ConfigError(
                f"--collection {self.collection}: give --source-domain and --target-domain, two values of its column "
                "domain (raydom info tells which there are)."
            )
        source = replace(self.images, domain=self.source_domain)
        target = replace(self.target_images, domain=self.target_domain)
        return (self.source_domain, self.collection, source), (self.target_domain, self.collection, target)


@dataclass(frozen=True, kw_only=True)
class AdaptationConfig(NetworkOptions, DomainsConfig):
    """Adaptation of a segmentation network to a target without labels, or with few."""

    initial: str | None = None
    """Model run to begin with, which gives the network too, instead of random weights."""
    pretrain_steps: int = 0
    """Steps at first that learn the labels alone."""
    labelled_target: int = 0
    """So many labelled images of the target are learnt too, drawn by the seed."""
    reweight: bool = False
    """Draw source images by their likeness to the target, as their intensity statistics tell it."""
    select: str = "last"
    """Which weights the run holds: last, or the best by source (score on the source's validation images) or by entropy
    (lowest on the target's, which needs no labels)."""
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        self.check_domains()
        self.check_network()
        self.check_restyling(self.train.augment)
        require(self.pretrain_steps >= 0, f"pretrain_steps must be >= 0; got {self.pretrain_steps}.")
        require(self.labelled_target >= 0, f"labelled_target must be >= 0; got {self.labelled_target}.")
        require(
            self.select in ("last", "source", "entropy"), f"select is last, source or entropy; got {self.select!r}."
        )
        require(
            self.select != "last" or self.train.patience is None,
            "patience counts validations without a better score: give --select source or entropy with it.",
        )


@dataclass(frozen=True, kw_only=True)
class DannConfig(AdaptationConfig):
    """Adapt a U-Net by domain classifiers at its levels, behind a gradient reversal."""

    levels: tuple[str, ...] = field(default=("bottleneck",), metadata={"comma": True})
    """Where the domain classifiers are, with commas between: encoder0 (the finest), encoder1, ..., bottleneck, ...,
    decoder1, decoder0."""
    weight: float = 0.1
    """Of the domain loss."""
    reversal: str = "warm-up"
    """Strength of the reversed gradient: warm-up (from 0 towards 1) or constant (1)."""
    gamma: float = 10.0
    """How fast it warms up."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weight(self.weight)
        _check_reversal(self.reversal)
        require(self.gamma > 0, f"gamma must be > 0; got {self.gamma}.")


@dataclass(frozen=True, kw_only=True)
class OutputAdversaryConfig(AdaptationConfig):
    """Adapt a network by an adversary on its label maps."""

    weight: float = 0.1
    """Of the adversary's loss."""
    updates: str = "reversal"
    """reversal (one update, the critic's gradient comes back reversed) or alternating (network and critic in turns)."""
    reversal: str = "warm-up"
    """Strength of the reversed gradient: warm-up (from 0 towards 1) or constant (1)."""
    critic_channels: int = 64
    """Of the critic's first convolution."""
    critic_rate: float = 1.0
    """Learning rate of the critic, as a share of the network's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_classes(self, "an adversary judges maps of classes")
        _check_weight(self.weight)
        _check_reversal(self.reversal)
        require(
            self.updates in ("reversal", "alternating"), f"updates are reversal or alternating; got {self.updates!r}."
        )
        require(self.critic_channels >= 1, f"critic_channels must be >= 1; got {self.critic_channels}.")
        require(self.critic_rate > 0, f"critic_rate must be > 0; got {self.critic_rate}.")


@dataclass(frozen=True, kw_only=True)
class EntropyConfig(AdaptationConfig):
    """Adapt a network by making it certain of the target."""

    weight: float = 0.01
    """Of the entropy, or of the adversary."""
    mode: str = "direct"
    """direct (the mean entropy of the target's pixels) or adversarial (an adversary on maps of it)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_classes(self, "entropy is that of classes")
        _check_weight(self.weight)
        require(self.mode in ("direct", "adversarial"), f"mode is direct or adversarial; got {self.mode!r}.")


@dataclass(frozen=True, kw_only=True)
class DiscrepancyConfig(AdaptationConfig):
    """Adapt a U-Net by two classifiers that disagree on what is foreign in the target."""

    weight: float = 1.0
    """Of their disagreement."""
    trunk_updates: int = 4
    """Updates of what lies below the classifiers, each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_classes(self, "the classifiers are those of classes")
        _check_weight(self.weight)
        require(self.trunk_updates >= 1, f"trunk_updates must be >= 1; got {self.trunk_updates}.")


@dataclass(frozen=True, kw_only=True)
class MeanTeacherConfig(AdaptationConfig):
    """Adapt a network by what a moving average of itself is confident of on the target."""

    weight: float = 1.0
    """Of what the teacher tells."""
    confidence: float = 0.968
    """Probability from which the teacher is believed."""
    decay: float = 0.99
    """Of the moving average, each step."""
    noise: float = 0.05
    """Standard deviation of the noise that the network sees on the target, in normalised intensities."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_classes(self, "a teacher tells classes")
        _check_weight(self.weight)
        require(0.5 <= self.confidence < 1, f"confidence is a probability from 0.5 to below 1; got {self.confidence}.")
        require(0 <= self.decay < 1, f"decay is from 0 to below 1; got {self.decay}.")
        require(self.noise >= 0, f"noise must be >= 0; got {self.noise}.")


@dataclass(frozen=True, kw_only=True)
class DritConfig(DomainsConfig):
    """Learn to make images of domains look like those of others, by taking content and attribute apart (DRIT++, MDMM).
    With --collection and without --source-domain and --target-domain, all its domains are learnt."""

    base_channels: int = 64
    """Channels of the first layers; the content has four times as many. 64 is the paper's."""
    attribute_size: int = 8
    """Numbers of an attribute."""
    separate: bool = False
    """Networks for each of two domains that share two blocks (DRIT++), instead of one for all domains (MDMM)."""
    losses: DritLossConfig = field(default_factory=DritLossConfig)
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-4, schedule="linear", crop_px=216, batch_size=1, clip_norm=0.0, augment=("flip", "rotate")
        )
    )

    def __post_init__(self) -> None:
        self.check_domains()
        unknown = {*TRAINED} & {*self.train.augment}
        require(not unknown, f"--augment {' '.join(sorted(unknown))} is for segmentation models; leave it out here.")
        self.network_config(in_channels=1, num_domains=2)  # which checks them

    def network_config(self, in_channels: int, num_domains: int) -> DisentangledConfig:
        """The networks for so many domains of images of so many channels."""
        return DisentangledConfig(
            in_channels=in_channels,
            num_domains=num_domains,
            base_channels=self.base_channels,
            attribute_size=self.attribute_size,
            separate=self.separate,
        )


@dataclass(frozen=True, kw_only=True)
class CycleGanConfig(DomainsConfig):
    """Learn to make images of a source look like those of a target, and the reverse, from images that are not paired
    (CycleGAN). The defaults are the reference code's; paper 003 has pixel-shuffle, blocks 3 and batch_size 16."""

    generator_network: str = "resnet"
    """resnet (the reference's) or pixel-shuffle (with a pixel-shuffle decoder)."""
    blocks: int = 9
    """Residual blocks of a generator; 6 suffice for crops of 128 px."""
    base_channels: int = 64
    """Channels of the first convolution of generators and critics."""
    critic_layers: int = 3
    """Strided layers of the critics: with 1, 2, 3 or 4 they judge patches of 16, 34, 70 or 142 px."""
    cycle_weight: float = 10.0
    """Weight of the way there and back."""
    identity_weight: float = 0.5
    """Weight of leaving images of the wanted domain as they are, times the cycle weight."""
    pool_size: int = 50
    """Made images that each critic remembers; 0: none."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=2e-4,
            schedule="linear",
            crop_px=256,
            batch_size=1,
            clip_norm=0.0,
            weight_decay=0.0,
            augment=("flip", "rotate"),
        )
    )

    def __post_init__(self) -> None:
        self.check_domains()
        self.network_config(channels=1)  # which checks them
        require(1 <= self.critic_layers <= 5, f"critic_layers must be 1 to 5; got {self.critic_layers}.")
        for name in ("cycle_weight", "identity_weight", "pool_size"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0; got {getattr(self, name)}.")

    def network_config(self, channels: int) -> GeneratorConfig:
        """A generator for images of so many channels."""
        return GeneratorConfig(
            name=self.generator_network, channels=channels, base_channels=self.base_channels, blocks=self.blocks
        )


def _check_weight(weight: float) -> None:
    require(weight >= 0, f"weight must be >= 0; got {weight}.")


def _check_reversal(reversal: str) -> None:
    require(reversal in ("warm-up", "constant"), f"reversal is warm-up or constant; got {reversal!r}.")


def _check_classes(config: NetworkOptions, why: str) -> None:
    output = config.network_config(in_channels=1).output
    require(output == "classes", f"{why}; got output {output}. Give --output classes and a network of them.")


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
    """NAME=REGEX: a column of the manifest, for --keep: the first group (or the whole match) in each file's whole path,
    such as 'cell_type=([A-Z0-9]+)_[^/]*$' for the beginning of its name."""
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
        require(len(self.source) > 0, "ingest needs at least one SOURCE: a file, a folder or a glob.")
        require(
            self.pixel_size_um is None or self.pixel_size_um > 0,
            f"pixel_size_um must be > 0; got {self.pixel_size_um}.",
        )
        require(self.pages in ("planes", "channels"), f"pages must be planes or channels; got {self.pages!r}.")
        require(
            self.axes is None
            or (set("yx") <= set(self.axes) <= set("tzcyx") and len(set(self.axes)) == len(self.axes)),
            f"axes must be y, x and some of t, z and c, each once; got {self.axes!r}.",
        )
        require(self.fps is None or self.fps > 0, f"fps must be > 0; got {self.fps}.")
        ignored, boundaries = self.ignored_values(), self.boundary_widths_px()
        require(all(width >= 1 for width in boundaries.values()), f"boundaries are at least 1 px; got {boundaries}.")
        require(
            not (self.index_only and (ignored or boundaries)),
            "with index_only nothing is written; leave out ignore_value and boundary_from_instances.",
        )
        require(
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
            require(
                bool(re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name) and pattern),
                f"column is NAME=REGEX, and the name has letters, digits and _ . -; got {entry!r}.",
            )
            require(name not in found, f"column {name} is given twice.")
            found[name] = pattern
        return found

    def ignored_values(self) -> dict[str, int]:
        """By label name, the value that does not count."""
        return {name: int(value) for name, value in _named_numbers("ignore_value", self.ignore_value).items()}

    def boundary_widths_px(self) -> dict[str, float]:
        """By label name, how far a boundary reaches on either side, px."""
        return _named_numbers("boundary_from_instances", self.boundary_from_instances)


def _is_positive(number: str) -> bool:
    try:
        return float(number) > 0
    except ValueError:
        return False


def _named_numbers(option: str, entries: tuple[str, ...]) -> dict[str, float]:
    """``NAME=NUMBER`` by name; without a name, it is that of the label called ``label``."""
    found: dict[str, float] = {}
    for entry in entries:
        name, _, number = entry.rpartition("=")
        name = name or "label"
        require(bool(re.fullmatch(r"-?\d+(\.\d+)?", number)), f"{option} is NAME=NUMBER or a number; got {entry!r}.")
        require(option != "ignore_value" or "." not in number, f"ignore_value is a whole number; got {entry!r}.")
        require(name not in found, f"{option} is given twice for label {name}.")
        found[name] = float(number)
    return found
