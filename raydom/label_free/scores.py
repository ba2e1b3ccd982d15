"""Scores of a segmenter that need no labels: larger is better in all of them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from raydom.algorithms.adaptation import self_information


def certainty(probabilities: Float[Tensor, "n classes h w"], valid: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """1 - the mean entropy of each crop's valid pixels, 0 to 1 (1: every class is told for sure).

    Collapse, to background everywhere, is as sure as can be.

    Source: Morerio et al. 2018, arXiv:1711.10288, who choose by the least entropy.
    """
    return 1 - _mean(self_information(probabilities).sum(dim=1), valid)


def agreement(views: Float[Tensor, "views n classes h w"], valid: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Soft Dice of the foreground of each crop and of itself turned and flipped, 0 to 1.

    2 sum(min(p, q)) / sum(p + q), the mean over the views; 1 where there is no foreground in either.
    """
    foreground = (1 - views[:, :, 0]) * valid
    first, others = foreground[0], foreground[1:]
    shared = 2 * torch.minimum(first, others).sum(dim=(2, 3))
    total = (first + others).sum(dim=(2, 3))
    tiny = 1e-6 * valid.sum(dim=(1, 2)).clamp(min=1)
    return ((shared + tiny) / (total + tiny)).mean(dim=0)


def information_maximisation(probabilities: Float[Tensor, "m classes"]) -> float:
    """Entropy of the mean prediction less the mean entropy, 0 to 1: sure of each pixel, and not the same for all.

    Source: Shi and Sha 2012, arXiv:1206.6438; Liang et al. 2020, arXiv:2002.08546.
    """
    mean = probabilities.mean(dim=0, keepdim=True)
    marginal = self_information(mean[:, :, None, None]).sum()
    conditional = self_information(probabilities[:, :, None, None]).sum(dim=1).mean()
    return float(marginal - conditional)


def neighbourhood_density(points: Float[Tensor, "m channels"], temperature: float = 0.05) -> float:
    """Soft neighbourhood density: the mean entropy, in nats, of each point's softmax similarity to all others.

    High where points have many neighbours that are as near as each other: where there are dense clusters.

    Args:
        points: Class probabilities or features.
        temperature: The paper's.

    Source: Saito et al. 2021, arXiv:2108.10860, sections 3.2 and 3.3.
    """
    unit = torch.nn.functional.normalize(points.float(), dim=1)
    similarity = unit @ unit.T / temperature
    similarity.fill_diagonal_(-math.inf)
    logs = similarity.log_softmax(dim=1).fill_diagonal_(0.0)
    return float(-(logs.exp().fill_diagonal_(0.0) * logs).sum(dim=1).mean())


def median_bandwidth(points: Float[Tensor, "m channels"]) -> float:
    """The median distance of two points: the width of the kernel of ``mmd``. Gretton et al. 2012 (JMLR 13:723)."""
    return max(float(torch.pdist(points).median()), 1e-6)


def mmd(a: Float[Tensor, "m channels"], b: Float[Tensor, "k channels"], bandwidth: float) -> float:
    """Maximum mean discrepancy of two samples, 0 (one distribution) to sqrt(2); the kernel is exp(-d^2 / 2 width^2).

    The root of the unbiased estimate of its square, or 0 where that is negative.

    Source: Gretton et al. 2012 (JMLR 13:723), equation 3; Long et al. 2015, arXiv:1502.02791.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (-(torch.cdist(x, y) ** 2) / (2 * bandwidth**2)).exp()

    def within(x: Tensor) -> Tensor:
        n = len(x)
        return (kernel(x, x).sum() - n) / (n * (n - 1))

    squared = within(a) + within(b) - 2 * kernel(a, b).mean()
    return math.sqrt(max(0.0, float(squared)))


def frechet(a: Float[Tensor, "m channels"], b: Float[Tensor, "k channels"]) -> float:
    """Frechet distance of the Gaussians with the moments of two samples, in the unit of the points; 0 for equal ones.

    The root of |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)).

    Source: Dowson and Landau 1982 (J. Multivariate Anal. 12:450); as Heusel et al. 2017, arXiv:1706.08500, compare
    features.
    """
    a, b = a.double(), b.double()
    of_a, of_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    # The root of A B has the trace of that of the symmetric A^(1/2) B A^(1/2).
    root = _root(of_a)
    cross = torch.linalg.eigvalsh(root @ of_b @ root).clamp(min=0).sqrt().sum()
    squared = (a.mean(dim=0) - b.mean(dim=0)).square().sum() + of_a.trace() + of_b.trace() - 2 * cross
    return math.sqrt(max(0.0, float(squared)))


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _mean(maps: Float[Tensor, "n h w"], valid: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Over the valid pixels of each crop."""
    return (maps * valid).sum(dim=(1, 2)) / valid.sum(dim=(1, 2)).clamp(min=1)
