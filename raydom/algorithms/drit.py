"""DRIT++ (Lee et al. 2020, arXiv:1905.01270) and its form for many domains, MDMM: translation by disentanglement.

Images of two domains are taken apart into contents and attributes, change their contents, and change them back.
Details are those of the authors' codes, HsinYingLee/DRIT (separate networks) and HsinYingLee/MDMM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from raydom.algorithms.cyclegan import as_generators_learn
from raydom.algorithms.phases import Algorithm, DomainBatch, Phase
from raydom.config import DisentangledConfig, DritLossConfig
from raydom.networks.disentangled import AttributeEncoder, Translator, build_generators
from raydom.networks.disentangled_discriminators import build_discriminators


class Drit(Algorithm):
    """Content and attribute encoders, a generator, and discriminators of images and of contents.

    Differs from the codes in these: the two images of a pair are always of different domains (MDMM's may be of one);
    pairs are drawn anew for each update; images have noise of a grey level (see ``as_generators_learn``), and all their
    pixels count, those by which small ones are mirrored too; the real images that the discriminator of random
    attributes sees are those of the other discriminator; the second image of the mode seeking loss is shown to no
    discriminator; sums over a batch are means over its pairs, so that weights do not depend on the batch size; each of
    the two updates of the generator has its own forward pass, with noise of its own; the weight decay is decoupled, as
    everywhere in raydom.
    """

    betas = (0.5, 0.999)

    def __init__(self, networks: DisentangledConfig, config: DritLossConfig, crop_px: int, seed: int = 0) -> None:
        """With fresh networks.

        Args:
            networks: Their shape.
            config: Weights of the losses.
            crop_px: Side of the training crops, px.
            seed: Of the initial weights.

        Raises:
            ConfigError: If the crops are too small for the discriminators.
        """
        self.networks, self.config = networks, config
        modules = build_generators(networks, seed) | build_discriminators(networks, crop_px, seed + 1)
        if not config.content_adversarial:
            del modules["content_discriminator"]
        self.modules: Mapping[str, nn.Module] = modules
        self.learning_rate_factors = {"content_discriminator": 1 / 2.5}
        self.clip_norms = {"content_discriminator": 5.0}
        self._content_encoder, self._generator = modules["content_encoder"], modules["generator"]
        self._attribute_encoder = cast("AttributeEncoder", modules["attribute_encoder"])
        # DRIT++ adds up what MDMM averages over the two images of a pair.
        self._images_of_pair = 2 if networks.separate else 1

    def exported(self) -> Translator:
        return Translator(self.networks, self.modules)

    def phases(self, step: int, num_steps: int) -> tuple[Phase, ...]:
        content = Phase("content", ("content_discriminator",), self.tell_contents)
        images = (
            Phase("discriminate", ("encoded_discriminator", "random_discriminator"), self.tell_images),
            Phase("translate", ("content_encoder", "attribute_encoder", "generator"), self.translate),
            Phase("diversify", ("content_encoder", "generator"), self.diversify),
        )
        if not self.config.content_adversarial:
            return images
        if (step + 1) % self.config.content_steps:
            return (content,)
        return (images[0], content, *images[1:]) if self.networks.separate else images

    def tell_contents(self, batch: DomainBatch) -> dict[str, Tensor]:
        """The content discriminator learns which domain a content is of."""
        images, domains = paired(batch)
        logits = self.modules["content_discriminator"](self._content_encoder(images, domains))
        return {"domain": self._images_of_pair * _cross_entropy(logits, self._content_code(domains))}

    def tell_images(self, batch: DomainBatch) -> dict[str, Tensor]:
        """The discriminators learn to tell real images from made ones, and the domain of real ones."""
        images, domains = paired(batch)
        content = swapped(self._content_encoder(images, domains))
        encoded = self._generator(content, drawn(*self._attribute_encoder(images, domains)), domains)
        made = {"encoded": encoded, "random": self._generator(content, self._random_attributes(images), domains)}
        losses = {}
        for name, fakes in made.items():
            discriminator = self.modules[f"{name}_discriminator"]
            maps, classes = discriminator(images, domains)
            fake_maps, _ = discriminator(fakes, domains)
            losses[name] = 2 * (real_or_made_loss(maps, real=True) + real_or_made_loss(fake_maps, real=False))
            if classes is not None:
                losses[f"{name}_domain"] = self.config.classification * self._domain_loss(classes, domains)
        return losses

    def translate(self, batch: DomainBatch) -> dict[str, Tensor]:
        """Both encoders and the generator learn from images that change their contents, twice."""
        config = self.config
        images, domains = paired(batch)
        content = self._content_encoder(images, domains)
        mean, log_variance = self._attribute_encoder(images, domains)
        self._attribute_encoder.observe(mean, log_variance, domains)
        attribute = drawn(mean, log_variance)
        own = self._generator(content, attribute, domains)
        crossed = self._generator(swapped(content), attribute, domains)
        content_again = swapped(self._content_encoder(crossed, domains))
        again = self._generator(content_again, drawn(*self._attribute_encoder(crossed, domains)), domains)
        losses = {
            "self_reconstruction": config.self_reconstruction * self._images_of_pair * F.l1_loss(own, images),
            "cross_cycle": config.cross_cycle * self._images_of_pair * F.l1_loss(again, images),
            "attribute_kl": config.attribute_kl * 2 * standard_normal_divergence(mean, log_variance),
            "content_l2": config.content_l2 * self._images_of_pair * content.float().square().mean(),
            **self._fooling("encoded_discriminator", crossed, domains),
        }
        if config.content_adversarial:
            logits = self.modules["content_discriminator"](content)
            # DRIT++ wants the discriminator undecided, MDMM wants it wrong.
            code = self._content_code(domains)
            wanted = torch.full_like(code, 0.5) if self.networks.separate else 1 - code
            losses["content"] = config.content_adversarial * self._images_of_pair * _cross_entropy(logits, wanted)
        return losses

    def diversify(self, batch: DomainBatch) -> dict[str, Tensor]:
        """The content encoder and the generator learn from images that are made with random attributes."""
        config = self.config
        images, domains = paired(batch)
        content = swapped(self._content_encoder(images, domains))
        attribute = self._random_attributes(images)
        made = self._generator(content, attribute, domains)
        found = self._attribute_encoder(made, domains)[0]
        losses = {
            "latent_regression": config.latent_regression * 2 * F.l1_loss(found, attribute),
            **self._fooling("random_discriminator", made, domains),
        }
        if config.mode_seeking:
            other = self._random_attributes(images)
            pairs = zip(made.chunk(2), self._generator(content, other, domains).chunk(2), strict=True)
            seeking = [mode_seeking_loss(a, b, attribute, other) for a, b in pairs]
            losses["mode_seeking"] = config.mode_seeking * torch.stack(seeking).sum()
        return losses

    def _fooling(self, name: str, made: Tensor, domains: Tensor) -> dict[str, Tensor]:
        """Made images shall look real to a discriminator, and of their domain."""
        maps, classes = self.modules[name](made, domains)
        losses = {"adversarial": self.config.adversarial * 2 * real_or_made_loss(maps, real=True)}
        if classes is not None:
            losses["domain"] = self.config.generated_classification * self._domain_loss(classes, domains)
        return losses

    def _domain_loss(self, logits: Tensor, domains: Tensor) -> Tensor:
        return _cross_entropy(logits, F.one_hot(domains, self.networks.num_domains))

    def _content_code(self, domains: Tensor) -> Tensor:
        """What the content discriminator is to tell: each domain, or with separate networks the second of two."""
        code = F.one_hot(domains, self.networks.num_domains)
        return (code[:, 1:] if self.networks.separate else code).float()

    def _random_attributes(self, images: Tensor) -> Tensor:
        """Draws of a standard normal, the same for both images of a pair."""
        attributes = torch.randn(len(images) // 2, self.networks.attribute_size, device=images.device)
        return attributes.repeat(2, 1)


def paired(batch: DomainBatch) -> tuple[Float[Tensor, "n2 c h w"], Int64[Tensor, " n2"]]:
    """As many pairs of images as there are of each domain, each of two domains drawn from torch's generator.

    Returns:
        Intensities from -1 to 1, with noise of a grey level; and domains. First those of all first images of a pair,
        then those of all second.
    """
    num_domains, num_pairs = len(batch.domains), len(batch.domains[0].images)
    drawn_domains = torch.stack([torch.randperm(num_domains)[:2] for _ in range(num_pairs)], dim=1).flatten()
    images = [batch.domains[domain].images[number % num_pairs] for number, domain in enumerate(drawn_domains.tolist())]
    return as_generators_learn(torch.stack(images)), drawn_domains.to(images[0].device)


def swapped(values: Float[Tensor, "n2 ..."]) -> Float[Tensor, "n2 ..."]:
    """Every first of a pair with its second exchanged."""
    return values.roll(len(values) // 2, dims=0)


def drawn(mean: Float[Tensor, "n z"], log_variance: Float[Tensor, "n z"]) -> Float[Tensor, "n z"]:
    """A draw of the normal distribution, through which gradients pass."""
    return mean + torch.randn_like(mean) * (0.5 * log_variance).exp()


def real_or_made_loss(maps: tuple[Float[Tensor, "_ 1 _ _"], ...], *, real: bool) -> Float[Tensor, ""]:
    """Cross-entropy of logits of being real, averaged over the patches of a scale and added over the scales, nats."""
    return torch.stack([_cross_entropy(logits, torch.full_like(logits, float(real))) for logits in maps]).sum()


def standard_normal_divergence(mean: Float[Tensor, "n z"], log_variance: Float[Tensor, "n z"]) -> Float[Tensor, ""]:
    """Kullback-Leibler divergence of normal distributions from the standard normal one, mean over the images, nats."""
    mean, log_variance = mean.float(), log_variance.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1).mean()


def mode_seeking_loss(
    image: Float[Tensor, "n c h w"],
    other_image: Float[Tensor, "n c h w"],
    attribute: Float[Tensor, "n2 z"],
    other_attribute: Float[Tensor, "n2 z"],
) -> Float[Tensor, ""]:
    """How far attributes are apart over how far the images made with them are (Mao et al. 2019, arXiv:1903.05628)."""
    apart = F.l1_loss(image.float(), other_image.float()) / F.l1_loss(attribute, other_attribute)
    return 1 / (apart + 1e-5)


def _cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), truth.float())
