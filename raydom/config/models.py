"""Networks, and what is known of a trained model."""

from __future__ import annotations

from dataclasses import dataclass

from raydom.config.base import require


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
