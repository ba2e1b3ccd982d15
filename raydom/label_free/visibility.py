"""Whether what is segmented can be seen in the images as they were, or was made up by a style."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from scipy import ndimage
from torch import Tensor

SIGMAS_PX = (1.0, 2.0, 4.0, 8.0)
SAMPLES = 1024
"""Pixels of each crop that are looked at."""
NUM_FOLDS = 4
RIDGE = 3e-3
CLIPPED = 3.0
"""Deviations beyond which squares of features grow no more."""
LEAST_VARIANCE = 1e-3
"""A foreground that varies less, such as one everywhere or nowhere, is hardly seen anywhere."""


class Visibility:
    """Asks how well the foreground of crops can be told from simple filters of their own pixels.

    Of each channel, at each of ``SIGMAS_PX``: the band of frequencies, the length of the gradient and both eigenvalues
    of the Hessian matrix, which pixel classifiers learn cells, vessels and membranes from (Arganda-Carreras et al.
    2017, Bioinformatics 33:2424; Berg et al. 2019, Nat. Methods 16:1226); and their squares. A ridge regression on them
    is fitted to what is told of some crops and tested on what is told of others.

    Args:
        pixels: The crops as they are, in any unit.
        valid: Their pixels that count.
        seed: Of the pixels that are looked at.
    """

    def __init__(self, pixels: Float32[np.ndarray, "n c h w"], valid: Bool[np.ndarray, "n h w"], seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        counted = [np.flatnonzero(one.ravel()) if one.any() else np.arange(one.size) for one in valid]
        self._places = np.stack([np.sort(generator.choice(places, SAMPLES)) for places in counted])
        filtered = [
            pixel_features(crop).reshape(-1, crop[0].size)[:, places].T
            for crop, places in zip(pixels, self._places, strict=True)
        ]
        features = np.concatenate(filtered)
        features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
        squares = np.clip(features, -CLIPPED, CLIPPED) ** 2
        self._features = np.concatenate([features, squares, np.ones((len(features), 1))], axis=1)
        # Whole crops are left out by turns; of a single one, stripes.
        stripe = np.arange(len(features)) * NUM_FOLDS // len(features)
        self._fold = stripe if len(pixels) < 2 else np.arange(len(features)) // SAMPLES % NUM_FOLDS
        with _one_thread():
            self._solvers = [
                _ridge_solver(torch.from_numpy(self._features[self._fold != fold])) for fold in range(NUM_FOLDS)
            ]

    def __call__(self, foreground: Float32[np.ndarray, "n h w"]) -> float:
        """Share of the variance of the foreground's probability that is foretold in crops left out, 0 to 1."""
        told = np.concatenate(
            [one.ravel()[places] for one, places in zip(foreground, self._places, strict=True)]
        ).astype(np.float64)
        foretold = np.empty_like(told)
        with _one_thread():
            for fold, solver in enumerate(self._solvers):
                left_out = self._fold == fold
                learnt = solver @ torch.from_numpy(told[~left_out])
                foretold[left_out] = (torch.from_numpy(self._features[left_out]) @ learnt).numpy()
        missed = np.square(told - foretold).mean()
        return float(max(0.0, told.var() - missed) / (told.var() + LEAST_VARIANCE))


@contextmanager
def _one_thread() -> Iterator[None]:
    """The last bits of a sum depend on how many threads add; a training must not depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _ridge_solver(features: Float[Tensor, "m features"]) -> Float[Tensor, "features m"]:
    """What gives the weights of a ridge regression, from the values at the points."""
    gram = features.T @ features + RIDGE * len(features) * torch.eye(features.shape[1], dtype=features.dtype)
    return torch.linalg.solve(gram, features.T)


def pixel_features(pixels: Float32[np.ndarray, "c h w"]) -> Float[np.ndarray, "features h w"]:
    """Of each channel and scale the band, the gradient and the eigenvalues of the Hessian; and what is left."""
    found = []
    for channel in pixels.astype(np.float32):
        before = channel
        for sigma in SIGMAS_PX:
            blurred = ndimage.gaussian_filter(channel, sigma)
            along_y, along_x = np.gradient(blurred)
            (yy, yx), xx = np.gradient(along_y), np.gradient(along_x, axis=1)
            mean, spread = (yy + xx) / 2, np.sqrt((yy - xx) ** 2 / 4 + yx**2)
            found += [before - blurred, np.hypot(along_y, along_x), mean + spread, mean - spread]
            before = blurred
        found.append(before)
    return np.stack(found)
