"""Textures: fixed functions of the place in the picture and of a class style, in [0, 1].

Phases are fixed, so what a texture looks like is fully said by its style: a generator can know it from a pooled code.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.data.procfaces.styles import ClassStyle

Values = NDArray[np.float32]

# Directions (radians) and phases of the waves whose sum makes clouds; any fixed, incommensurate set will do.
_CLOUDS = ((0.3, 0.0, 1.0), (1.9, 1.3, 1.27), (2.6, 2.1, 0.61), (4.1, 4.0, 1.73))


def texture(style: ClassStyle, x: Values, y: Values) -> Values:
    """Weight of the accent colour at the points (x, y) (any equal shapes, image units): float32 in [0, 1]."""
    if style.texture == "plain":
        return np.zeros_like(x)
    cos, sin = np.float32(np.cos(style.orientation)), np.float32(np.sin(style.orientation))
    along, across = cos * x + sin * y, -sin * x + cos * y
    omega = np.float32(np.pi * style.frequency)
    if style.texture == "stripes":
        return _soft_step(np.sin(omega * along))
    if style.texture == "checks":
        return _soft_step(np.sin(omega * along)) * np.float32(0.5) + _soft_step(np.sin(omega * across)) * np.float32(
            0.5
        )
    if style.texture == "dots":
        return _soft_step(np.sin(omega * along) + np.sin(omega * across) - np.float32(0.9))
    if style.texture == "clouds":
        total = np.zeros_like(x)
        for direction, phase, scale in _CLOUDS:
            kx, ky = np.float32(np.cos(direction) * scale), np.float32(np.sin(direction) * scale)
            total += np.sin(omega * (kx * x + ky * y) + np.float32(phase))
        result: Values = np.clip(np.float32(0.5) + total * np.float32(0.2), 0, 1)
        return result
    bend = (
        along
        + np.float32(0.12) * np.sin(np.float32(3.1) * across)
        + np.float32(0.05) * np.sin(np.float32(7.3) * across + along)
    )
    fine = np.sin(omega * bend) + np.float32(0.5) * np.sin(np.float32(1.73) * omega * bend + np.float32(1.7))
    result = np.clip(np.float32(0.5) + np.float32(0.32) * fine, 0, 1)
    return result


def _soft_step(wave: Values) -> Values:
    result: Values = np.clip(np.float32(0.5) + np.float32(2.0) * wave, 0, 1)
    return result
