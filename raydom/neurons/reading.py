"""What is read of an image for its neurons: intensities, evidence of membranes, and the maps that describe borders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from raydom.config.neurons import EvidenceConfig
from raydom.neurons.evidence import context_px, feature_maps, frangi_boundary
from raydom.neurons.intensity import stretched
from raydom.storage.collection import Image
from raydom.types import Region


@dataclass(frozen=True, slots=True)
class Source:
    """An image, and what tells of its membranes.

    Of a volume, all planes of a region are read.
    """

    image: Image
    config: EvidenceConfig
    boundary: Image | None = None
    """Probabilities of membranes, in its first channel; None: the Frangi filter tells, of the image."""
    inside: bool = False
    """The probabilities are of the inside of neurons."""
    channel: int = 0
    """Of the image."""

    def raw(self, region: Region) -> Float32[np.ndarray, "*d h w"]:
        """Intensities, 0 to 1 by the statistics of the whole image."""
        return stretched(self.image.numpy(region)[self.channel], self.image.statistics, self.channel)

    def evidence(self, region: Region) -> Float32[np.ndarray, "*d h w"]:
        """How likely each pixel is membrane, in steps of 1/255; the same whatever region it is asked with."""
        if self.boundary is None:
            seen = self._around(region)
            return frangi_boundary(self.raw(seen), self.config)[region.relative_to(seen).index]
        stored = self.boundary.numpy(region)[0]
        probability = stored / np.float32(255) if stored.dtype.kind == "u" else stored.astype(np.float32)
        steps = np.rint(np.clip(probability, 0, 1) * 255)
        return ((255 - steps if self.inside else steps) / np.float32(255)).astype(np.float32)

    def maps(self, region: Region, evidence: Float32[np.ndarray, "*d h w"]) -> UInt8[np.ndarray, "c *d h w"]:
        """The feature maps of a region, of which the evidence is given; the same whatever the region."""
        seen = self._around(region)
        raw = self.raw(seen)
        padded = np.zeros_like(raw)  # of the evidence, pixels say something of themselves only
        padded[region.relative_to(seen).index] = evidence
        return feature_maps(raw, padded, self.config)[region.relative_to(seen).index]

    def _around(self, region: Region) -> Region:
        return region.grown(context_px(self.config)).clipped(Region.whole(self.image.plane_shape))
