"""What is read of an image says the same of a pixel, whatever region it is read with."""

import numpy as np
import pytest

from raydom.config import EvidenceConfig
from raydom.images.intensity import image_statistics
from raydom.neurons.intensity import stretched
from raydom.neurons.reading import Source
from raydom.storage.collection import Image
from raydom.types import Region


class Pixels(Image):
    """An image that is nowhere stored."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    @property
    def statistics(self):
        return image_statistics(self.pixels.reshape(len(self.pixels), -1, self.pixels.shape[-1]))

    @property
    def plane_shape(self):
        return self.pixels.shape[-2:]

    def numpy(self, region=None, level=0):
        return self.pixels[region.index]


@pytest.mark.parametrize("shape", [(1, 97, 83), (1, 9, 61, 53)])
@pytest.mark.parametrize("told", [False, True])
def test_evidence_and_maps_do_not_hang_on_the_region(shape, told) -> None:
    random = np.random.default_rng(0)
    image, probability = (Pixels(random.integers(0, 256, shape).astype(np.uint8)) for _ in range(2))
    config = EvidenceConfig(frangi_sigmas_px=(1.0,), gradient_sigmas_px=(1.0, 2.0))
    source = Source(image, config, probability if told else None, inside=told)
    whole, part = Region.whole(shape[-2:]), Region((7, 11), (40, 29))
    evidence, of_part = source.evidence(whole), source.evidence(part)
    assert np.array_equal(of_part, evidence[part.index])
    assert np.array_equal(source.maps(part, of_part), source.maps(whole, evidence)[part.index])
    if told:
        assert np.array_equal(np.rint(evidence * 255), 255 - probability.pixels[0])


def test_an_image_is_stretched_between_its_own_percentiles() -> None:
    pixels = np.arange(10_001, dtype=np.uint16).reshape(1, 73, 137)
    found = stretched(pixels[0], image_statistics(pixels))
    assert found[0, 0] == 0 and found[-1, -1] == 1
    assert found.ravel()[5000] == pytest.approx(0.5, abs=1e-4) and found.ravel()[2550] == pytest.approx(0.25, abs=1e-2)


def test_an_image_of_one_value_is_black() -> None:
    pixels = np.full((1, 5, 7), 3, np.uint8)
    assert not stretched(pixels[0], image_statistics(pixels)).any()
