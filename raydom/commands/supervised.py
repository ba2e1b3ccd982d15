"""Which network is trained, and what supervised training is told."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from raydom.config import TRAINED, ImageFilter, MaskRCNNConfig, NetworkConfig, TrainConfig, TrainRunConfig, require

BALANCED = "balanced"
"""Weights of classes that follow from how often each is seen."""


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
    """With --augment cyclegan or drit: the run of that training, which gives crops of the source other looks."""
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


def _is_positive(number: str) -> bool:
    try:
        return float(number) > 0
    except ValueError:
        return False


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig(NetworkOptions):
    """Training of a segmentation network on a labelled collection."""

    collection: str
    """Collection with labelled images. Its images of split test are not used; those of split val validate."""
    out: str
    """Folder of the model run."""
    find_lr: bool = False
    """Only try rising learning rates on the first batches, tell the losses and suggest one; nothing is written."""
    sample_every: int | None = None
    """Draw what is made now every so many steps, as pictures in OUT/samples."""
    maskrcnn: MaskRCNNConfig = field(default_factory=MaskRCNNConfig)
    images: ImageFilter = field(default_factory=ImageFilter)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: TrainRunConfig = field(default_factory=lambda: TrainRunConfig(workers=1))

    def __post_init__(self) -> None:
        self.check_network()
        self.check_restyling(self.train.augment)
        require(
            self.sample_every is None or self.sample_every >= 1, f"sample_every must be >= 1; got {self.sample_every}."
        )
        require(
            self.sample_every is None or self.network_config(in_channels=1).output != "objects",
            "--sample-every draws what is told of each pixel; leave it out for output objects.",
        )

    def network_config(self, in_channels: int) -> NetworkConfig:
        """The network for images of so many channels."""
        return replace(super().network_config(in_channels), maskrcnn=self.maskrcnn)
