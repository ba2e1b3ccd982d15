"""A score of generators that needs no labels: how certain a model of the source is of what they make of the target."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from raydom.algorithms.cyclegan import as_generators_see, as_images
from raydom.algorithms.trained import load_trained
from raydom.config import GeneratorSpec, ModelSpec
from raydom.networks.disentangled import Translator
from raydom.storage.collection import open_collection
from raydom.training.crops import CropReader, CropView
from raydom.training.domains import DomainImages
from raydom.training.unlabelled import certainty


class SeenAsSource(nn.Module):
    """A model of the source to which the generators show the target as source.

    Args:
        segment: From images of the source, normalised as the model's spec says, to logits.
        model: That spec.
        generators: Those of CycleGAN by direction, or DRIT's translator between two domains.
        spec: Theirs.
    """

    def __init__(
        self, segment: Callable[[Tensor], Tensor], model: ModelSpec, generators: nn.Module, spec: GeneratorSpec
    ) -> None:
        super().__init__()
        self.generators, self._segment, self._model, self._spec = generators, segment, model, spec

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images of the target, normalised as the model's spec says."""
        model, (made, seen) = self._model, self._spec.domains
        fractions = images * (model.high - model.low) + model.low
        as_source = as_images(self._as_source(as_generators_see((fractions - seen.low) / (seen.high - seen.low))))
        fractions = as_source * (made.high - made.low) + made.low
        return self._segment((fractions - model.low) / (model.high - model.low))

    def _as_source(self, images: Tensor) -> Tensor:
        generators, made = self.generators, images
        if isinstance(generators, Translator):
            source = torch.zeros(len(images), dtype=torch.int64, device=images.device)
            normal = torch.zeros(len(images), generators.config.attribute_size, device=images.device)
            made = generators(images, source + 1, source, generators.sample(normal, source))
        else:
            made = generators["target_to_source"](images)  # type: ignore[index]
        return made


def certainty_as_source(
    model: str, generators: nn.Module, spec: GeneratorSpec, target: DomainImages, device: torch.device
) -> Callable[[], float]:
    """What tells how certain a model run is, in 0..1, of all training images of the target as the generators make them
    now; the processes share them."""
    network, seen = load_trained(model)
    network.to(device)
    network_of_target = SeenAsSource(network.forward, seen, generators, spec)
    view = CropView.of(seen, labelled=False)
    reader = CropReader(open_collection(target.collection), target.training_ids, view)
    return lambda: certainty(network_of_target, reader, target.training_ids, seen, device)
