"""Seeds derived from where a draw is needed, so that nothing depends on what was drawn before."""

from __future__ import annotations

import numpy as np

ORDER, CROP, EMPTY, RESTYLE = 0, 1, 2, 3
"""Streams of random numbers: the order of the images, what is cut from them, which crops lose their objects, and
which get another look."""


def derived_seed(*parts: int) -> int:
    """A 64-bit seed that is a function of its parts (each >= 0) and looks unrelated for any two lists of parts."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def derived_generator(*parts: int) -> np.random.Generator:
    """A numpy generator for these parts."""
    return np.random.default_rng(parts)
