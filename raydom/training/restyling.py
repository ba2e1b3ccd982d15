"""Training crops in another look: made by a generator, or taken from collections stylised beforehand.

Labels stay as they are: the crops have the same content. Wagner et al. 2021 (HistAuGAN, arXiv:2107.12357) draw domain
and attribute at random for half of the crops, as does Liu et al. 2022 (paper 001).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from raydom.algorithms.cyclegan import as_generators_see, as_images
from raydom.algorithms.trained import DIRECTIONS, load_generators, load_translator
from raydom.commands import NetworkOptions
from raydom.config import (
    TRAINED,
    DisentangledConfig,
    GeneratorConfig,
    GeneratorSpec,
    ModelSpec,
    TrainConfig,
    fingerprint,
)
from raydom.errors import ConfigError, DataError
from raydom.storage import files
from raydom.storage.collection import open_collection
from raydom.storage.model_run import open_generator_run
from raydom.training.crops import SAME_SIZE, CropReader, CropView, Restyle, padded_sample
from raydom.types import ImageRecord, Region

logger = logging.getLogger(__name__)

DEFAULT_SHARE = 0.5
RESTYLING = ("generator", "augment_collection", "augment_share")
"""The options, told in the settings of a run by what they mean."""


@dataclass(frozen=True)
class RestylingPlan:
    """What share of the crops gets which looks, checked and fixed."""

    share: float
    generator: str | None
    """Model run."""
    generator_hash: str | None
    sources: tuple[tuple[str, int], ...]
    """By image id, the generator's number of the domain that the image is of, where it is not 0."""
    collections: tuple[str, ...]
    fingerprints: tuple[str, ...]
    """Of the images of each collection."""

    def settings(self) -> dict[str, Any]:
        """All that the result depends on."""
        return {"share": self.share, "generator": self.generator_hash, "collections": list(self.fingerprints)}


def plan_restyling(
    config: NetworkOptions, train: TrainConfig, spec: ModelSpec, records: Sequence[ImageRecord]
) -> RestylingPlan | None:
    """Check what is asked for; None: nothing is.

    Args:
        config: The options.
        train: The augmentations.
        spec: Of the model to be trained.
        records: Its training images.

    Raises:
        ConfigError: If the generator is of another kind, or for images of other channels.
        DataError: If a collection lacks an image, or has it in another shape.
    """
    if config.generator is None and not config.augment_collection:
        return None
    uri, content_hash, sources = None, None, {}
    if config.generator is not None:
        run = open_generator_run(config.generator)
        uri, content_hash = run.uri, run.content_hash
        named = [name for name in TRAINED if name in train.augment]
        if named != [run.spec.kind]:
            raise ConfigError(
                f"--generator {run.uri} is a run of {run.spec.kind}; give --augment with {run.spec.kind} instead of "
                f"{' and '.join(named)}."
            )
        _check_images(run.uri, run.spec, spec)
        names = [domain.name for domain in run.spec.domains]
        numbers = {record.image_id: names.index(str(record.domain)) for record in records if record.domain in names}
        sources = {image_id: number for image_id, number in sorted(numbers.items()) if number}
    collections = tuple(files.absolute(one) for one in config.augment_collection)
    return RestylingPlan(
        share=DEFAULT_SHARE if config.augment_share is None else config.augment_share,
        generator=uri,
        generator_hash=content_hash,
        sources=tuple(sources.items()),
        collections=collections,
        fingerprints=tuple(_same_images(one, records) for one in collections),
    )


def restyler(
    plan: RestylingPlan | None, image_ids: Sequence[str], view: CropView, train: TrainConfig, device: torch.device
) -> Restyle | None:
    """What restyles the crops of these images, in this process."""
    if plan is None:
        return None
    share = plan.share
    looks: list[Restyle] = []
    if plan.generator is not None:
        looks.append(_Made(plan.generator, dict(plan.sources), view, device))
    unlabelled = CropView(low=view.low, high=view.high, pixel_size_um=view.pixel_size_um, label=None)
    for uri in plan.collections:
        looks.append(_Taken(CropReader(open_collection(uri), image_ids, unlabelled), train.crop_px))

    def restyle(image_id: str, region: Region, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        if generator.random() >= share:
            return image
        return looks[int(generator.integers(len(looks)))](image_id, region, image, generator)

    return restyle


def _check_images(uri: str, generators: GeneratorSpec, spec: ModelSpec) -> None:
    if len(generators.channels) != len(spec.channels):
        raise ConfigError(
            f"--generator {uri} takes images of {len(generators.channels)} channels "
            f"({', '.join(generators.channels)}); the training images have {len(spec.channels)} "
            f"({', '.join(spec.channels)}). Train one on such images."
        )
    there, here = generators.pixel_size_um, spec.pixel_size_um
    if there is not None and here is not None and abs(there / here - 1) > SAME_SIZE:
        logger.warning("the generator was trained on pixels of %g um; the crops' pixels are of %g um.", there, here)


def _same_images(uri: str, records: Sequence[ImageRecord]) -> str:
    """The fingerprint of a collection's images that stand for these."""
    stylised = {record.image_id: record for record in open_collection(uri).records}
    missing = [record.image_id for record in records if record.image_id not in stylised]
    if missing:
        raise DataError(
            f"--augment-collection {uri} lacks {len(missing)} of {len(records)} training images, such as {missing[0]}. "
            "Stylise all of them: raydom stylize --collection SOURCE."
        )
    for record in records:
        other = stylised[record.image_id]
        if (other.shape, other.axes) != (record.shape, record.axes):
            raise DataError(
                f"--augment-collection {uri}: image {record.image_id} has shape {other.shape} ({other.axes}), but the "
                f"training image has {record.shape} ({record.axes}); labels would not fit."
            )
    return fingerprint([[record.image_id, stylised[record.image_id].sha256] for record in records])


class _Made:
    """Crops as a generator makes them, in a random domain; those of DRIT have a random attribute of that domain.

    Intensities are seen and made as at inference: in each domain's range, and then in the model's.
    """

    def __init__(self, run: str, sources: Mapping[str, int], view: CropView, device: torch.device) -> None:
        self._spec = open_generator_run(run).spec
        self._sources, self._view, self._device = sources, view, device
        if isinstance(self._spec.generator, DisentangledConfig):
            self._translator = load_translator(run)[0].to(device)
        else:
            self._generators = load_generators(run)[0].to(device)

    @torch.inference_mode()
    def __call__(
        self, image_id: str, region: Region, image: np.ndarray, generator: np.random.Generator
    ) -> Float32[np.ndarray, "c h w"]:
        source, view = self._sources.get(image_id, 0), self._view
        seen = self._spec.domains[source]
        fractions = torch.from_numpy(image)[None].to(self._device) * (view.high - view.low) + view.low
        number, made = self._make(as_generators_see((fractions - seen.low) / (seen.high - seen.low)), source, generator)
        domain = self._spec.domains[number]
        fractions = domain.low + as_images(made) * (domain.high - domain.low)
        restyled: np.ndarray = ((fractions - view.low) / (view.high - view.low))[0].cpu().numpy()
        return restyled

    def _make(self, image: Tensor, source: int, generator: np.random.Generator) -> tuple[int, Tensor]:
        networks = self._spec.generator
        if isinstance(networks, GeneratorConfig):
            return 1 - source, self._generators[DIRECTIONS[source]](image)
        number = int(generator.integers(networks.num_domains))
        normal = torch.from_numpy(generator.standard_normal((1, networks.attribute_size), dtype=np.float32))
        sources, domains = torch.tensor([[source], [number]], device=self._device)
        attributes = self._translator.sample(normal.to(self._device), domains)
        return number, self._translator(image, sources, domains, attributes)


class _Taken:
    """The same crops of a collection that was stylised beforehand."""

    def __init__(self, reader: CropReader, crop_px: int) -> None:
        self._reader, self._crop_px = reader, crop_px

    def __call__(
        self, image_id: str, region: Region, image: np.ndarray, generator: np.random.Generator
    ) -> Float32[np.ndarray, "c h w"]:
        return padded_sample(self._reader.read(image_id, region), self._crop_px).image
