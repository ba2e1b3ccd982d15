"""What the commands are told that train generators between domains."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydom.commands.domains import DomainsConfig
from raydom.config import TRAINED, DisentangledConfig, DritLossConfig, GeneratorConfig, TrainConfig, require


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
    model: str | None = None
    """Segmentation model of the source. Given it, the run holds the generators by which the model is most certain of
    the target made to look like the source, which needs no labels, instead of the last ones."""
    pixel_size_um: float | None = field(default=None, metadata={"flag": "--pixel-size"})
    """Pixel size at which the networks see images, um, such as that of the model that is to see what they make.
    Default: the median of the training images'."""
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
        _check_settings(self)
        self.network_config(channels=1)  # which checks them
        require(1 <= self.critic_layers <= 5, f"critic_layers must be 1 to 5; got {self.critic_layers}.")
        for name in ("cycle_weight", "identity_weight", "pool_size"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0; got {getattr(self, name)}.")

    def network_config(self, channels: int) -> GeneratorConfig:
        """A generator for images of so many channels."""
        return GeneratorConfig(
            name=self.generator_network, channels=channels, base_channels=self.base_channels, blocks=self.blocks
        )


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
    model: str | None = None
    """Segmentation model of the source. Given it, the run holds the generators by which the model is most certain of
    the target made to look like the source, which needs no labels, instead of the last ones."""
    pixel_size_um: float | None = field(default=None, metadata={"flag": "--pixel-size"})
    """Pixel size at which the networks see images, um, such as that of the model that is to see what they make.
    Default: the median of the training images'."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            learning_rate=1e-4, schedule="linear", crop_px=216, batch_size=1, clip_norm=0.0, augment=("flip", "rotate")
        )
    )

    def __post_init__(self) -> None:
        self.check_domains()
        _check_settings(self)
        self.network_config(in_channels=1, num_domains=2)  # which checks them
        asked, usual = self.losses, DritLossConfig()
        unused = ["classification", "generated_classification"] if self.separate else []
        unused += [] if asked.content_adversarial else ["content_steps"]
        for name in unused:
            require(
                getattr(asked, name) == getattr(usual, name),
                f"--losses.{name.replace('_', '-')} {getattr(asked, name):g} has no effect "
                + ("without a content discriminator." if name == "content_steps" else "with --separate."),
            )

    def network_config(self, in_channels: int, num_domains: int) -> DisentangledConfig:
        """The networks for so many domains of images of so many channels."""
        return DisentangledConfig(
            in_channels=in_channels,
            num_domains=num_domains,
            base_channels=self.base_channels,
            attribute_size=self.attribute_size,
            separate=self.separate,
        )


def _check_settings(config: CycleGanConfig | DritConfig) -> None:
    """Refuse what generators, which see no labels and are not validated, have no use for."""
    size = config.pixel_size_um
    require(size is None or size > 0, f"pixel_size_um must be > 0; got {size}.")
    useless = [name for name in config.train.augment if name in (*TRAINED, "empty")]
    require(not useless, f"--augment {' '.join(useless)} is for segmentation models; leave it out here.")
    require(
        config.train.validation_fraction == TrainConfig().validation_fraction,
        "validation_fraction has no effect on generators, which learn from all images. Leave it out.",
    )
    require(
        config.model is not None or config.train.patience is None,
        "patience has no effect on generators, which have no score but that of a --model RUN: give one, or leave it "
        "out.",
    )
