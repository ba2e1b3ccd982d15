"""Networks, and what is known of a trained model."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydom.config.base import require

NETWORKS = (
    "unet", "u2net", "u2netp", "unetplusplus", "deeplabv3", "deeplabv3plus", "hrnet_w18", "hrnet_w30", "hrnet_w48",
    "maskrcnn",
)  # fmt: skip
OUTPUTS = ("classes", "boundary", "distance", "objects")
"""What networks can be taught to tell: the first three of each pixel, the last as a list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRCNNConfig:
    """Settings of Mask R-CNN for nuclei: those of Mirzaev's entry to the Data Science Bowl 2018, where it told them."""

    anchor_sizes_px: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Side of the anchors of each of the five levels of the feature pyramid (strides 4 to 64), px."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors."""
    proposals: int = 2048
    """Proposals kept of an image after non-maximum suppression, and at most so many of each level before it."""
    proposal_nms: float = 0.7
    """Proposals that overlap a better one by more than this IoU are dropped."""
    min_proposal_score: float = 0.1
    """Least confidence of a proposal, when not training. Where it leaves no more than ``proposals``, an object is found
    whatever else is in view; where it does not, those in a wider view crowd each other out."""
    rpn_samples: int = 320
    """Anchors of an image that the proposal loss looks at."""
    roi_samples: int = 512
    """Proposals of an image that the heads learn from."""
    roi_positives: float = 0.33
    """The largest share of objects among them."""
    detections: int = 400
    """Objects found in an image at most, the surest first."""
    min_score: float = 0.75
    """Least confidence of an object."""
    nms: float = 0.3
    """Objects whose boxes overlap that of a surer one by more than this IoU are dropped."""
    mask_threshold: float = 0.35
    """Probability from which a pixel belongs to the object."""

    def __post_init__(self) -> None:
        require(
            len(self.anchor_sizes_px) == 5 and all(size >= 1 for size in self.anchor_sizes_px),
            f"anchor_sizes_px are five sides >= 1, one for each level; got {self.anchor_sizes_px}.",
        )
        require(
            len(self.anchor_ratios) >= 1 and all(ratio > 0 for ratio in self.anchor_ratios),
            f"anchor_ratios are at least one number > 0; got {self.anchor_ratios}.",
        )
        for name in ("proposals", "rpn_samples", "roi_samples", "detections"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1; got {getattr(self, name)}.")
        for name in ("proposal_nms", "min_proposal_score", "roi_positives", "min_score", "nms", "mask_threshold"):
            require(0 <= getattr(self, name) <= 1, f"{name} must be between 0 and 1; got {getattr(self, name)}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """A segmentation network with all that its shape depends on."""

    name: str = "unet"
    """unet (Ronneberger et al. 2015, arXiv:1505.04597, with same padding), u2net and u2netp (Qin et al. 2020,
    arXiv:2005.09007), unetplusplus (Zhou et al. 2018, arXiv:1807.10165), deeplabv3 and deeplabv3plus (Chen et al. 2017,
    arXiv:1706.05587, and 2018, arXiv:1802.02611), hrnet_w18, hrnet_w30 and hrnet_w48 (Wang et al. 2020,
    arXiv:1908.07919), maskrcnn (He et al. 2017, arXiv:1703.06870), or package.module:function."""
    in_channels: int = 1
    num_classes: int = 2
    """Including the background. Two classes have one output channel (a sigmoid), more have one each (a softmax)."""
    output: str = "classes"
    """classes; or, for instances, boundary (two sigmoids: object, and its border) or distance (two sigmoids: object,
    and the distance to its border over the largest within the object), see raydom.images.targets; or objects, of
    maskrcnn alone, which has no other."""
    base_channels: int = 64
    """Channels of the first level of a U-Net; each level down has twice as many."""
    depth: int = 4
    """Number of poolings of unet and unetplusplus. The total stride is 2 ** depth."""
    norm: str = "batch"
    """Of a U-Net: batch or none (the paper has none)."""
    encoder: str = "resnet34"
    """Of unetplusplus, deeplabv3 and deeplabv3plus: an encoder of segmentation-models-pytorch (tu-NAME is one of timm);
    of maskrcnn: resnet18, resnet34 or resnet50."""
    maskrcnn: MaskRCNNConfig = field(default_factory=MaskRCNNConfig)
    """Used by maskrcnn alone."""

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
        require(
            (self.output == "objects") == (self.name == "maskrcnn"),
            f"maskrcnn tells objects, and the other networks classes, boundary or distance; got {self.name} with "
            f"output {self.output}.",
        )

    @property
    def num_outputs(self) -> int:
        """Channels of the network's output; 0 for objects, which are a list."""
        if self.output == "objects":
            return 0
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
    window_px: int = 512
    """Side of the windows in which a network that is not exact is asked about images, px: twice that of its training
    crops. U²-Net fails on much larger ones, whose coarse features are unlike any that it was trained on."""
    threshold: float = 0.5
    """Foreground probability from which a pixel is labelled (two classes)."""
    label: str = "label"
    """Name of the label that the model was trained on and writes."""

    @property
    def num_classes(self) -> int:
        return self.network.num_classes
