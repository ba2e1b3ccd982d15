"""sRGB and CIE Lab, plane by plane.

The functions use only operators that numpy arrays and torch tensors share, so statistics (numpy) and style methods
(torch, on any device, with gradients) go through the same arithmetic. Constants: IEC 61966-2-1 (sRGB) and CIE 15, with
the D65 white of the 2 degree observer, as in scikit-image.
"""

from __future__ import annotations

from typing import Any

Plane = Any
"""A numpy array or a torch tensor of any shape, floating point."""

_XYZ_FROM_RGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
_RGB_FROM_XYZ = (
    (3.240481343200526, -1.5371515162713185, -0.498536326168888),
    (-0.9692549499965682, 1.8759900014898907, 0.041555926558292815),
    (0.0556466391351772, -0.20404133836651123, 1.0573110696453443),
)
_WHITE = (0.95047, 1.0, 1.08883)
_LINEAR_BELOW = 0.008856
"""Relative luminance under which lightness is linear (CIE 15, rounded as in scikit-image)."""


def srgb_to_lab(red: Plane, green: Plane, blue: Plane) -> tuple[Plane, Plane, Plane]:
    """CIE Lab of sRGB planes in 0..1; values outside are clipped first.

    Returns:
        L in 0..100, and a and b, about -128..127.
    """
    rgb = tuple(_linear_light(plane) for plane in (red, green, blue))
    x, y, z = (_lightness_root(_mix(rgb, row) / white) for row, white in zip(_XYZ_FROM_RGB, _WHITE, strict=True))
    return 116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)


def lab_to_srgb(lightness: Plane, a: Plane, b: Plane) -> tuple[Plane, Plane, Plane]:
    """sRGB planes, clipped to 0..1, of CIE Lab planes; so colours that no screen can show change."""
    y = (lightness + 16.0) / 116.0
    roots = (y + a / 500.0, y, y - b / 200.0)
    xyz = tuple(_root_to_light(root) * white for root, white in zip(roots, _WHITE, strict=True))
    red, green, blue = (_gamma(_mix(xyz, row)) for row in _RGB_FROM_XYZ)
    return red, green, blue


def gray_to_lightness(gray: Plane) -> Plane:
    """L, 0..100, of a gray sRGB plane in 0..1; values outside are clipped first."""
    return 116.0 * _lightness_root(_linear_light(gray)) - 16.0


def lightness_to_gray(lightness: Plane) -> Plane:
    """The gray sRGB plane, clipped to 0..1, of lightness 0..100."""
    return _gamma(_root_to_light((lightness + 16.0) / 116.0))


def _mix(planes: tuple[Plane, ...], weights: tuple[float, ...]) -> Plane:
    first, second, third = (plane * weight for plane, weight in zip(planes, weights, strict=True))
    return first + second + third


def _choose(condition: Plane, where_true: Plane, where_false: Plane) -> Plane:
    """``where``, without asking whose; both choices must be finite everywhere."""
    return where_true * condition + where_false * ~condition


def _linear_light(plane: Plane) -> Plane:
    plane = plane.clip(0.0, 1.0)
    return _choose(plane > 0.04045, ((plane + 0.055) / 1.055) ** 2.4, plane / 12.92)


def _gamma(light: Plane) -> Plane:
    light = light.clip(0.0, 1.0)
    power = 1.055 * light.clip(0.0031308, 1.0) ** (1.0 / 2.4) - 0.055
    return _choose(light > 0.0031308, power, light * 12.92).clip(0.0, 1.0)


def _lightness_root(light: Plane) -> Plane:
    root = light.clip(_LINEAR_BELOW, None) ** (1.0 / 3.0)
    return _choose(light > _LINEAR_BELOW, root, light * 7.787 + 16.0 / 116.0)


def _root_to_light(root: Plane) -> Plane:
    # Below black: a and b can push x or z under zero, which no light has.
    light = _choose(root > 0.2068966, root**3, (root - 16.0 / 116.0) / 7.787)
    return light.clip(0.0, None)
