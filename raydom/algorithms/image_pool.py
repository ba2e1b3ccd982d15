"""A memory of generated images, so that a discriminator does not chase the generator's latest step."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class ImagePool:
    """The last generated images, more or less, up to ``size`` of them.

    Source: Shrivastava et al. 2017 (arXiv:1612.07828), section 2.3, as Zhu et al. 2017 (arXiv:1703.10593) have it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._images: list[Tensor] = []

    def exchanged(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """For each image either itself or an older one, which it then replaces.

        While the pool fills, all are kept and returned; then each is swapped with probability 1/2. The chance is
        torch's, which the training loop seeds for each step.
        """
        return torch.stack([self._exchanged(image) for image in images.detach()])

    def _exchanged(self, image: Tensor) -> Tensor:
        if len(self._images) < self.size:
            self._images.append(image.clone())
            return image
        if not self.size or float(torch.rand(())) < 0.5:
            return image
        place = int(torch.randint(self.size, ()))
        old, self._images[place] = self._images[place], image.clone()
        return old

    def state(self) -> dict[str, Any]:
        return {"images": [image.cpu() for image in self._images]}

    def load_state(self, state: dict[str, Any], device: torch.device) -> None:
        """Take back what ``state`` gave."""
        self._images = [image.to(device) for image in state["images"]]
