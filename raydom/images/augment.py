"""Augmentation of training crops: what a microscope could as well have seen. The mask follows the image.

Particles, empty crops, blur, noise and colour are those of Aarnio et al. 2022, "Domain adaptation of microscope cell
images", sections 3.3 and 4.3, which gives no sizes or amounts: those here are ours.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy.ndimage import binary_dilation, gaussian_filter

Crop = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image (C, H, W) float32, label (H, W) int64 and validity (H, W) bool of one crop."""

PARTICLES_COVER = 0.03
"""Share of a crop that particles of one size cover at most."""
EMPTY_SHARE = 0.1
"""Share of the crops that ``empty`` makes free of cells."""
EMPTY_MARGIN_PX = 3
"""Around each object so much goes with it: its blurred edge, px."""
EMPTY_SMOOTH_PX = 8.0
"""Structures of the background larger than this are kept where they are, smaller ones are copied from elsewhere, px."""
LEAST_BACKGROUND = 0.1
"""A crop with a smaller share of background has none to be filled with."""


def augment(
    image: Float32[np.ndarray, "c h w"],
    label: Int64[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    names: tuple[str, ...],
    generator: np.random.Generator,
    particles_px: tuple[float, float] = (3.0, 6.0),
) -> Crop:
    """Apply the named augmentations, in a fixed order, each drawn anew; all but the first two leave label and validity.

    - ``flip``: each axis with probability one half.
    - ``rotate``: by 0, 90, 180 or 270 degrees, equally likely. Other angles would blur both the texture and the edges
      of the mask, and together with the flips these are all the symmetries of the pixel grid. Needs a square crop.
    - ``particles``: every second crop gets round dark blobs of two sizes, see ``with_particles``.
    - ``blur``: every second crop is blurred by a Gaussian of a standard deviation of up to 1.5 px.
    - ``intensity``: see ``jitter_intensity``.
    - ``colour``: each channel has a gain of 0.85 to 1.15 and an offset of up to 0.05 of its own.
    - ``noise``: every second crop gets Gaussian noise of a standard deviation of up to 0.05, in each channel its own.

    Blobs lie in the scene, so they come before the blur of the optics, and the noise of the camera last. ``empty``
    changes labels, so it is a function of its own: ``without_objects``.

    Args:
        image: Normalised intensities, about 0 to 1; black is 0.
        label: Class of each pixel.
        valid: False where a pixel must not count.
        names: Which of the above; order does not matter.
        generator: Source of randomness. The same draws are made whatever ``names`` holds, so that switching one
            augmentation off does not change the others; what is drawn for those after ``intensity`` takes nothing
            from it, but from children of it.
        particles_px: Radii of the two sizes of particles.
    """
    flip_y, flip_x = (bool(draw < 0.5) for draw in generator.random(2))
    quarter_turns = int(generator.integers(4))
    jitter = generator.uniform(-1.0, 1.0, size=3)
    of_particles, of_blur, of_colour, of_noise = generator.spawn(4)
    if "flip" in names:
        image, label, valid = (_flipped(array, flip_y, flip_x) for array in (image, label, valid))
    if "rotate" in names:
        image, label, valid = (np.rot90(array, quarter_turns, axes=(-2, -1)) for array in (image, label, valid))
    if "particles" in names and of_particles.random() < 0.5:
        image = with_particles(image, particles_px, of_particles)
    if "blur" in names and of_blur.random() < 0.5:
        image = gaussian_filter(image, of_blur.uniform(0.0, 1.5), mode="reflect", axes=(1, 2))
    if "intensity" in names:
        image = jitter_intensity(image, gain=1 + 0.25 * jitter[0], offset=0.1 * jitter[1], log_gamma=0.35 * jitter[2])
    if "colour" in names:
        gain, offset = of_colour.uniform(-1.0, 1.0, (2, len(image), 1, 1)).astype(np.float32)
        image = (1 + np.float32(0.15) * gain) * image + np.float32(0.05) * offset
    if "noise" in names and of_noise.random() < 0.5:
        image = image + np.float32(of_noise.uniform(0.0, 0.05)) * of_noise.standard_normal(image.shape, np.float32)
    return np.ascontiguousarray(image), np.ascontiguousarray(label), np.ascontiguousarray(valid)


def jitter_intensity(
    image: Float32[np.ndarray, "c h w"], gain: float, offset: float, log_gamma: float
) -> Float32[np.ndarray, "c h w"]:
    """``gain * x ** exp(log_gamma) + offset``, the same for all channels so that their ratios stay.

    Values below 0 keep their sign under the power; nothing is clipped.
    """
    gamma = np.float32(np.exp(log_gamma))
    return np.float32(gain) * np.sign(image) * np.abs(image) ** gamma + np.float32(offset)


def with_particles(
    image: Float32[np.ndarray, "c h w"], radii_px: tuple[float, float], generator: np.random.Generator
) -> Float32[np.ndarray, "c h w"]:
    """The image with round dark blobs, as magnetic particles in a culture look: of each size none up to as many as
    cover 3 % of it (at least one), each in a gray of 0 to 0.15, with an edge about 1 px wide.

    A network that is shown them with unchanged labels learns to go around them (Aarnio et al. 2022, section 3.3).

    Args:
        image: Normalised intensities; black is 0.
        radii_px: Of the two sizes.
        generator: Of numbers, places and grays.
    """
    height, width = image.shape[1:]
    seen = image.copy()
    for radius in radii_px:
        most = max(1, round(PARTICLES_COVER * height * width / (np.pi * radius**2)))
        for _ in range(int(generator.integers(0, most + 1))):
            (top, left), gray = generator.uniform((0, 0), (height, width)), np.float32(generator.uniform(0.0, 0.15))
            reach = radius + 2
            window = (
                slice(max(0, int(top - reach)), int(top + reach) + 1),
                slice(max(0, int(left - reach)), int(left + reach) + 1),
            )
            y, x = np.ogrid[:height, :width]
            distance = np.hypot(y[window[0]] - top, x[:, window[1]] - left)
            opacity = np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)
            part = seen[:, window[0], window[1]]
            part += opacity * (gray - part)
    return seen


def without_objects(
    image: Float32[np.ndarray, "c h w"], foreground: Bool[np.ndarray, "h w"], generator: np.random.Generator
) -> Float32[np.ndarray, "c h w"] | None:
    """The image with background where its objects were: what the slide looks like where no cell lies.

    Objects (and 3 px around them, where their blurred edges are) are filled with the local mean of the background, a
    Gaussian of 8 px over background pixels only, plus its small structures (noise, texture) from another place of the
    same crop: the crop's residuals moved by a random step, again by another one for what is not yet filled.

    The paper adds cell-free images to its training data without saying how they were made; here they come from the
    training images themselves, so that any collection has them and their background is the domain's own.

    Args:
        image: Normalised intensities.
        foreground: Where there are objects.
        generator: Of the steps.

    Returns:
        None if less than a tenth of the crop is background, which cannot fill the rest.
    """
    hidden = binary_dilation(foreground, iterations=EMPTY_MARGIN_PX) if foreground.any() else foreground
    if np.mean(~hidden) < LEAST_BACKGROUND:
        return None
    seen = (~hidden).astype(np.float32)
    weight = gaussian_filter(seen, EMPTY_SMOOTH_PX, mode="reflect")
    smooth = np.empty_like(image)
    for channel, pixels in enumerate(image):
        overall = pixels[~hidden].mean()  # where no background is near, its mean is left
        around = gaussian_filter((pixels - overall) * seen, EMPTY_SMOOTH_PX, mode="reflect")
        smooth[channel] = overall + around / np.maximum(weight, np.float32(1e-3))
    residual = image - smooth
    filled, missing = image.copy(), hidden.copy()
    filled[:, missing] = smooth[:, missing]
    for _ in range(32):
        if not missing.any():
            break
        step = tuple(int(generator.integers(size)) for size in hidden.shape)
        found = missing & np.roll(~hidden, step, axis=(0, 1))
        filled[:, found] += np.roll(residual, step, axis=(1, 2))[:, found]
        missing &= ~found
    return filled


def _flipped(array: np.ndarray, flip_y: bool, flip_x: bool) -> np.ndarray:
    return array[..., :: -1 if flip_y else 1, :: -1 if flip_x else 1]
