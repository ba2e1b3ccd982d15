"""Networks, and what is known of a trained model."""

from __future__ import annotations

from dataclasses import dataclass

from raydom.config.base import require

OUTPUTS = ("classes", "boundary", "distance")
"""What networks can be taught to tell of each pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """A segmentation network with all that its shape depends on."""

    name: str = "unet"
    """unet (Ronneberger et al. 2015, arXiv:1505.04597, with same padding), or package.module:function."""
    in_channels: int = 1
    num_classes: int = 2
    """Including the background. Two classes have one output channel (a sigmoid), more have one each (a softmax)."""
    output: str = "classes"
    """classes; or, for instances, boundary (two sigmoids: object, and its border) or distance (two sigmoids: object,
    and the distance to its border over the largest within the object)."""
    base_channels: int = 64
    """Channels of the first level of a U-Net; each level down has twice as many."""
    depth: int = 4
    """Number of poolings of a U-Net. The total stride is 2 ** depth."""
    norm: str = "batch"
    """Of a U-Net: batch or none (the paper has none)."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "base_channels", "depth"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1; got {getattr(self, name)}.")
        require(self.num_classes >= 2, f"num_classes must be >= 2; got {self.num_classes}.")
        require(self.norm in ("batch", "none"), f"norm must be batch or none; got {self.norm!r}.")
        require(self.output in OUTPUTS, f"output must be one of {', '.join(OUTPUTS)}; got {self.output!r}.")
        require(
            self.output == "classes" or self.num_classes == 2,
            f"output {self.output} is for objects of one class (num_classes 2); got {self.num_classes} classes.",
        )

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output."""
        if self.output != "classes":
            return 2
        return 1 if self.num_classes == 2 else self.num_classes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What inference must know of a trained model; stored in the ``config.json`` of its run."""

    network: NetworkConfig
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
    exact: bool = True
    """Whether no output pixel looks further than that; else it is how much context is enough for most of what it
    tells, and blocks are blended where they overlap."""
    threshold: float = 0.5
    """Foreground probability from which a pixel is labelled (two classes)."""
    label: str = "label"
    """Name of the label that the model was trained on and writes."""

    @property
    def num_classes(self) -> int:
        return self.network.num_classes
