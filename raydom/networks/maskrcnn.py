"""Mask R-CNN (He et al. 2017, arXiv:1703.06870) of torchvision, set up for nuclei."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor, nn

from raydom.config import NetworkConfig
from raydom.errors import ConfigError
from raydom.networks.pretrained import load_encoder
from raydom.networks.unet import pad_to_multiple

BACKBONES = ("resnet18", "resnet34", "resnet50")
MASK_PX = 28
"""Side of the grid on which a mask is predicted within its box."""


@dataclass(frozen=True)
class Detections:
    """The objects of an image, the surest first, on the device of the network."""

    boxes: Float[Tensor, "n 4"]
    """x and y of the first edge, x and y of the last, px: pixel (y, x) covers x to x + 1. Within the image."""
    scores: Float[Tensor, " n"]
    """Confidence, 0 to 1."""
    masks: Float[Tensor, "n 28 28"]
    """Probability of the object on a grid over its box; see ``pasted_mask``."""

    def __len__(self) -> int:
        return len(self.scores)

    def cpu(self) -> Detections:
        return Detections(self.boxes.cpu(), self.scores.cpu(), self.masks.cpu())


class MaskRCNN(nn.Module):
    """A residual network with a feature pyramid, proposals, and heads for boxes and masks.

    torchvision's modules without its resizing and normalisation: images come normalised as the model's spec says, and
    at the pixel size that it was trained with. Its losses and detections are computed in float32 whatever the precision
    of the backbone. There is one kind of object.
    """

    total_stride = 32
    """Input sides that are multiples of this are not padded, px."""
    receptive_field_px = 128
    """Context that is enough for most objects, px; the largest anchor."""
    exact = False

    def __init__(self, config: NetworkConfig, seed: int = 0, weights: str | None = None) -> None:
        """A network with fresh weights, its backbone pretrained if wanted.

        Args:
            config: Channels, backbone (``encoder``) and the settings ``maskrcnn``.
            seed: Of the initial weights; the same seed gives the same weights. The global generator is not touched.
            weights: Of the backbone: ``imagenet`` or a file (see ``load_encoder``); None: fresh.

        Raises:
            ConfigError: If there is no such backbone, or the weights are not its own.
        """
        super().__init__()
        if config.encoder not in BACKBONES:
            raise ConfigError(f"maskrcnn has an encoder of {', '.join(BACKBONES)}; got {config.encoder!r}.")
        self.config = config.maskrcnn
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _network(config)
        if weights is not None:
            from torchvision.models import get_model_weights

            imagenet: Any = next(iter(get_model_weights(config.encoder)))
            body = self.network.backbone.body  # type: ignore[union-attr]
            load_encoder(body, weights, lambda: imagenet.get_state_dict(progress=False), imagenet.url)  # type: ignore[arg-type]

    def losses(
        self, images: Float[Tensor, "n c h w"], labels: Int64[Tensor, "n h w"], valid: Bool[Tensor, "n h w"]
    ) -> dict[str, Tensor]:
        """The five losses of training: proposals (two), class, box and mask. In training mode alone.

        Args:
            images: With sides of any size.
            labels: Number of the object of each pixel; 0: none.
            valid: Where it is False the image is blanked and holds no object.
        """
        images = torch.where(valid[:, None], images, 0.0)
        targets = [_targets(torch.where(v, one, 0)) for one, v in zip(labels, valid, strict=True)]
        proposals, features, sizes, losses = self._propose(images, targets)
        with torch.autocast(images.device.type, enabled=False):
            _, of_heads = self.network.roi_heads(features, proposals, sizes, targets)  # type: ignore[operator]
        names = {
            "loss_objectness": "proposal",
            "loss_rpn_box_reg": "proposal_box",
            "loss_classifier": "class",
            "loss_box_reg": "box",
            "loss_mask": "mask",
        }
        return {names[name]: value for name, value in (losses | of_heads).items()}

    def forward(self, images: Float[Tensor, "n c h w"]) -> list[Detections]:
        """The objects of each image. In evaluation mode alone; an image's do not depend on the others of the batch."""
        proposals, features, sizes, _ = self._propose(images, None)
        with torch.autocast(images.device.type, enabled=False):
            found, _ = self.network.roi_heads(features, proposals, sizes)  # type: ignore[operator]
        return [Detections(one["boxes"], one["scores"], one["masks"][:, 0]) for one in found]

    def _propose(
        self, images: Tensor, targets: Sequence[Mapping[str, Tensor]] | None
    ) -> tuple[list[Tensor], dict[str, Tensor], list[tuple[int, int]], dict[str, Tensor]]:
        from torchvision.models.detection.image_list import ImageList

        sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        padded = pad_to_multiple(images, self.total_stride)
        features = self.network.backbone(padded)  # type: ignore[operator]
        # A training begins with proposals of no confidence.
        self.network.rpn.score_thresh = self.config.min_proposal_score if targets is None else 0.0  # type: ignore[union-attr]
        with torch.autocast(images.device.type, enabled=False):
            features = {name: value.float() for name, value in features.items()}
            proposals, losses = self.network.rpn(ImageList(padded, sizes), features, targets)  # type: ignore[operator]
        return proposals, features, sizes, losses


def pasted_mask(
    detections: Detections, index: int, shape: tuple[int, int], threshold: float
) -> tuple[int, int, Bool[Tensor, "h w"]]:
    """One object on the pixels of its image.

    Args:
        detections: Of an image.
        index: Of the object.
        shape: Height and width of the image, px.
        threshold: Probability from which a pixel belongs to the object.

    Returns:
        First row and column, px, and the mask of the pixels whose centres lie within the box.
    """
    x0, y0, x1, y1 = detections.boxes[index].tolist()
    top, left = max(0, round(y0)), max(0, round(x0))
    bottom, right = min(shape[0], max(round(y1), top + 1)), min(shape[1], max(round(x1), left + 1))
    mask = detections.masks[index]
    rows = _grid_positions(top, bottom, y0, y1, mask.device)
    columns = _grid_positions(left, right, x0, x1, mask.device)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    # Beyond the centres of the outermost cells the mask keeps their value.
    values = F.grid_sample(mask[None, None], grid[None], padding_mode="border", align_corners=False)
    return top, left, values[0, 0] >= threshold


def label_image(detections: Detections, shape: tuple[int, int], threshold: float) -> Int32[Tensor, "h w"]:
    """Numbers 1 and up in the order of the detections; where objects overlap, the surer one has the pixel."""
    labels = torch.zeros(shape, dtype=torch.int32, device=detections.masks.device)
    for index in range(len(detections)):
        top, left, mask = pasted_mask(detections, index, shape, threshold)
        window = labels[top : top + mask.shape[0], left : left + mask.shape[1]]
        window[mask & (window == 0)] = index + 1
    return labels


def _grid_positions(first: int, last: int, start: float, stop: float, device: torch.device) -> Tensor:
    """Where in a box the centres of pixels lie: -1 at its one edge, 1 at the other."""
    centres = torch.arange(first, last, device=device, dtype=torch.float32) + 0.5
    return 2 * (centres - start) / max(stop - start, 1e-6) - 1


def _targets(labels: Int64[Tensor, "h w"]) -> dict[str, Tensor]:
    """The objects of an image, as torchvision takes them: box, class and mask of each."""
    numbers = labels.unique()
    masks = labels[None] == numbers[numbers > 0, None, None]
    rows, columns = masks.any(dim=2), masks.any(dim=1)

    def first_and_last(marked: Tensor) -> tuple[Tensor, Tensor]:
        length, ones = marked.shape[1], marked.to(torch.uint8)
        return ones.argmax(dim=1), length - ones.flip(1).argmax(dim=1)

    (top, bottom), (left, right) = first_and_last(rows), first_and_last(columns)
    return {
        "boxes": torch.stack([left, top, right, bottom], dim=1).float(),
        "labels": torch.ones(len(masks), dtype=torch.int64, device=labels.device),
        "masks": masks.to(torch.uint8),
    }


def _network(config: NetworkConfig) -> nn.Module:
    from torchvision.models import get_model
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.models.detection.mask_rcnn import MaskRCNN as TorchvisionMaskRCNN

    own = config.maskrcnn
    body = get_model(config.encoder, weights=None)
    if config.in_channels != 3:
        body.conv1 = nn.Conv2d(config.in_channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
    network: nn.Module = TorchvisionMaskRCNN(
        _resnet_fpn_extractor(body, trainable_layers=5),
        num_classes=2,
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in own.anchor_sizes_px), (own.anchor_ratios,) * len(own.anchor_sizes_px)
        ),
        rpn_pre_nms_top_n_train=own.proposals,
        rpn_pre_nms_top_n_test=own.proposals,
        rpn_post_nms_top_n_train=own.proposals,
        rpn_post_nms_top_n_test=own.proposals,
        rpn_nms_thresh=own.proposal_nms,
        rpn_batch_size_per_image=own.rpn_samples,
        box_score_thresh=own.min_score,
        box_nms_thresh=own.nms,
        box_detections_per_img=own.detections,
        box_batch_size_per_image=own.roi_samples,
        box_positive_fraction=own.roi_positives,
    )
    heads = network.roi_heads
    # As in the paper's own code. With torchvision's the first masks are far from 0, and the first steps of a training
    # without pretrained weights kill the heads: few units live, and all objects are equally sure.
    for layer, std in (
        (heads.box_predictor.cls_score, 0.01),  # type: ignore[union-attr]
        (heads.box_predictor.bbox_pred, 0.001),  # type: ignore[union-attr]
        (heads.mask_predictor.mask_fcn_logits, 0.001),  # type: ignore[union-attr]
    ):
        nn.init.normal_(layer.weight, std=std)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[union-attr, arg-type]
    return network
