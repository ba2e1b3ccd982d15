"""Networks of trials beside the model of the source: scored as it is, in the range that they were trained on."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from raydom.config import ModelSpec, require
from raydom.training.crops import SAME_SIZE


class Shown(nn.Module):
    """A trial's network where the model's is asked: it is shown intensities in the range that it was trained on.

    Args:
        network: Of the trial.
        model: Of the model, in whose range the intensities are.
        own: Of the trial.
    """

    def __init__(self, network: nn.Module, model: ModelSpec, own: ModelSpec) -> None:
        super().__init__()
        self.network = network
        self.gain = (model.high - model.low) / (own.high - own.low)
        self.offset = (model.low - own.low) / (own.high - own.low)

    def forward(self, images: Tensor) -> Any:
        return self.network(images * self.gain + self.offset)


def check_scored(spec: ModelSpec, model: ModelSpec, crop_px: int) -> None:
    """Refuse what cannot be scored beside the model of the source.

    Args:
        spec: Of a trial.
        model: Of the model of the source.
        crop_px: Side of the crops that are scored on.

    Raises:
        ConfigError: If the networks do not tell the same, of the same pixels.
    """
    for name, own, other in (
        ("outputs", spec.network.output, model.network.output),
        ("classes", spec.num_classes, model.num_classes),
        ("channels", spec.network.in_channels, model.network.in_channels),
    ):
        require(own == other, f"it has {name} {own}, and the model that trials are compared with has {other}.")
    own_um, other_um = spec.pixel_size_um, model.pixel_size_um
    require(
        own_um is None or other_um is None or math.isclose(own_um, other_um, rel_tol=SAME_SIZE),
        f"it sees pixels of {own_um} um, and the model that trials are compared with of {other_um} um.",
    )
    require(
        crop_px % spec.total_stride == 0,
        f"its network needs crops whose side is a multiple of {spec.total_stride} px; --sample-px is {crop_px}.",
    )
