"""DRIT++ and MDMM: the shape of the networks and the weights of the losses."""

from __future__ import annotations

from dataclasses import dataclass

from raydom.config.base import require


@dataclass(frozen=True, slots=True, kw_only=True)
class DisentangledConfig:
    """Encoders of content and attribute, and the generator that joins them."""

    in_channels: int = 1
    num_domains: int = 2
    base_channels: int = 64
    """Channels of the first layers; the content has four times as many."""
    attribute_size: int = 8
    """Numbers of an attribute, which tells how an image of a domain looks."""
    separate: bool = False
    """Networks for each of two domains, which share the last block of the content encoder and the first of the
    generator (DRIT++); else one for all domains, told which (MDMM)."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "base_channels", "attribute_size"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1; got {getattr(self, name)}.")
        require(self.num_domains >= 2, f"num_domains must be >= 2; got {self.num_domains}.")
        require(
            not self.separate or self.num_domains == 2,
            f"separate networks are for two domains; got {self.num_domains}. Leave out separate.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DritLossConfig:
    """Weights of the losses, and how often what learns. The defaults are those of the reference codes."""

    self_reconstruction: float = 10.0
    """An image made of its own content and attribute is itself."""
    cross_cycle: float = 10.0
    """Two images that changed contents, and changed them back, are themselves."""
    latent_regression: float = 10.0
    """The attribute is found again in the image that was made with it."""
    attribute_kl: float = 0.01
    """Attributes are like draws of a standard normal."""
    content_l2: float = 0.01
    """Contents are small."""
    adversarial: float = 1.0
    """Made images look real to the discriminators."""
    content_adversarial: float = 1.0
    """The content does not tell its domain; 0: there is no content discriminator."""
    mode_seeking: float = 1.0
    """Different attributes make different images (Mao et al. 2019, arXiv:1903.05628; MDMM has it not); 0: left out."""
    classification: float = 1.0
    """Discriminators of MDMM tell the domain of real images."""
    generated_classification: float = 5.0
    """They tell the domain that a made image is to be of."""
    content_steps: int = 3
    """In all but one of so many steps, the content discriminator alone learns."""

    def __post_init__(self) -> None:
        for name in (
            "self_reconstruction", "cross_cycle", "latent_regression", "attribute_kl", "content_l2", "adversarial",
            "content_adversarial", "mode_seeking", "classification", "generated_classification",
        ):  # fmt: skip
            require(getattr(self, name) >= 0, f"{name} must be >= 0; got {getattr(self, name)}.")
        require(self.content_steps >= 1, f"content_steps must be >= 1; got {self.content_steps}.")
