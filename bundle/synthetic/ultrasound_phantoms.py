# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic ultrasound fans: speckle over layers of tissue, as a curved probe shows them. They stand for no patient."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

__all__ = ["ULTRASOUND_LESIONS", "ULTRASOUND_SPACING", "fan_bounds", "make_ultrasound"]

ULTRASOUND_SPACING = 0.018  # cm per pixel
ULTRASOUND_LESIONS = ("hypoechoic mass",)
_SHAPE = (480, 640)
_LINES, _SAMPLES = 256, 512  # scan lines, and samples along each
_RADII = (4.0, 11.4)  # cm from the center of the probe's curve to the skin, and to the deepest echo
_HALF_ANGLE = 0.5  # of the fan, in radians
_CENTER = (-3.26, 319.5 * ULTRASOUND_SPACING)  # of the curve: cm from the upper left pixel, down and to the right


def make_ultrasound(rng: np.random.Generator, lesion: str | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """
    Return a synthetic image of a curved ultrasound probe: skin, fat with septa, gland, muscle, and depth marks.

    Tissue is drawn along the scan lines, multiplied by speckle (the magnitude of filtered complex Gaussian noise, wider
    across the lines the deeper it lies), weakened with depth, compressed by a logarithm and then brought to the fan.

    Args:
        rng: everything random comes from it alone.
        lesion: ``None`` for a normal image, or one of :py:data:`ULTRASOUND_LESIONS`: dark, with a ragged border, a thin
            bright rim and a shadow behind it.

    Returns:
        display values 0..1, float32, shape ``(480, 640)``; and the box around the mass (without its shadow) as left,
        upper, right, lower edge in pixels, shape ``(4,)``, or ``None``.

    Raises:
        ValueError: When ``lesion`` is unknown.
    """
    if lesion not in (None, *ULTRASOUND_LESIONS):
        raise ValueError(f"lesion must be None or one of {list(ULTRASOUND_LESIONS)}, got '{lesion}'.")
    radius = np.linspace(*_RADII, _SAMPLES, dtype=np.float32)[:, None]
    angle = np.linspace(-_HALF_ANGLE, _HALF_ANGLE, _LINES, dtype=np.float32)[None]
    depth = radius - _RADII[0] + 0 * angle
    across = radius * np.sin(angle)  # cm from the middle line
    echo = _tissue(depth, across, rng)
    inside = None
    if lesion is not None:
        echo, inside = _with_mass(echo, depth, across, radius * np.cos(angle) - _RADII[0], rng)
    echo = echo * _speckle(rng) * np.exp(-rng.uniform(0.16, 0.22) * depth)
    decibels = 20 * np.log10(echo + 1e-4)
    lines = np.clip((decibels + rng.uniform(44, 48)) / 54, 0, 1).astype(np.float32)
    samples, columns, seen = _scan_conversion()
    image = np.where(seen, ndimage.map_coordinates(lines, (samples, columns), order=1), 0).astype(np.float32)
    _draw_scales(image)
    if inside is None:
        return image, None
    mask = (ndimage.map_coordinates(inside.astype(np.float32), (samples, columns), order=1) > 0.5) & seen
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return image, np.array([cols[0], rows[0], cols[-1] + 1, rows[-1] + 1], np.float32)


def fan_bounds() -> tuple[int, int, int, int]:
    """Return the first row, first column, last row and last column of the fan."""
    seen = _scan_conversion()[2]
    rows, columns = np.flatnonzero(seen.any(axis=1)).tolist(), np.flatnonzero(seen.any(axis=0)).tolist()
    return rows[0], columns[0], rows[-1], columns[-1]


@cache
def _scan_conversion() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each pixel's sample and scan line, and whether it lies in the fan."""
    down, right = np.mgrid[: _SHAPE[0], : _SHAPE[1]] * ULTRASOUND_SPACING
    down, right = down - _CENTER[0], right - _CENTER[1]
    radius, angle = np.hypot(down, right), np.arctan2(right, down)
    samples = (radius - _RADII[0]) / (_RADII[1] - _RADII[0]) * (_SAMPLES - 1)
    lines = (angle + _HALF_ANGLE) / (2 * _HALF_ANGLE) * (_LINES - 1)
    return samples, lines, (samples >= 0) & (samples <= _SAMPLES - 1) & (lines >= 0) & (lines <= _LINES - 1)


def _waves(across: np.ndarray, rng: np.random.Generator, height: float) -> np.ndarray:
    """Return a smooth random undulation in cm."""
    out = np.zeros_like(across)
    for n in (1, 2, 3, 4):
        out += height / n * np.sin(across * rng.uniform(0.3, 0.6) * n + rng.uniform(0, 2 * np.pi))
    return out


def _smooth_noise(rng: np.random.Generator, sigma: tuple[float, float]) -> np.ndarray:
    """Return correlated noise of mean 0 and deviation 1 on the scan lines."""
    noise = ndimage.gaussian_filter(rng.standard_normal((_SAMPLES, _LINES), np.float32), sigma)
    return noise / noise.std()


def _tissue(depth: np.ndarray, across: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return echo strengths of layers that run across the image, before speckle."""
    fat = 1.5 + rng.normal(0, 0.12) + _waves(across, rng, 0.12)
    gland = 4.2 + rng.normal(0, 0.2) + _waves(across, rng, 0.18)
    muscle = 5.9 + rng.normal(0, 0.2) + _waves(across, rng, 0.12)
    step = [1 / (1 + np.exp(-np.clip((depth - edge) / 0.05, -30, 30))) for edge in (0.25, fat, gland, muscle)]
    patches = np.exp(0.35 * _smooth_noise(rng, (14, 18)))
    strands = np.exp(0.5 * _smooth_noise(rng, (2.5, 22)))  # fibers along the layers
    echo = 0.9 * (1 - step[0]) + 0.16 * patches * step[0] * (1 - step[1])
    echo += 0.5 * patches * strands * step[1] * (1 - step[2])
    echo += 0.22 * strands**1.5 * step[2] * (1 - step[3]) + 0.3 * patches * step[3]
    # sheets between the layers reflect, most where they face the probe
    for edge, strength, width in ((0.25, 0.7, 0.03), (fat, 0.9, 0.04), (gland, 1.4, 0.045), (muscle, 2.2, 0.06)):
        uneven = np.exp(0.5 * _smooth_noise(rng, (4, 10)))
        echo += strength * uneven * np.exp(-(((depth - edge) / width) ** 2))
    for _ in range(7):  # thin septa in the fat and the gland
        middle, level, slope = rng.uniform(-3, 3), rng.uniform(0.6, 3.6), rng.normal(0, 0.18)
        line = depth - level - slope * (across - middle) - 0.06 * np.sin(3 * across + rng.uniform(0, 6))
        extent = np.exp(-(((across - middle) / rng.uniform(0.5, 1.2)) ** 4))
        echo += 0.8 * np.exp(-((line / 0.03) ** 2)) * extent
    return echo


def _with_mass(
    echo: np.ndarray, depth: np.ndarray, across: np.ndarray, down: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the echoes with a mass and its shadow, and the mass as a mask; ``down`` is cm below mid-skin."""
    center = rng.uniform(-1.6, 1.6), rng.uniform(2.0, 3.4)
    radii = rng.uniform(0.75, 1.25), rng.uniform(0.55, 0.85)
    dx, dy = (across - center[0]) / radii[0], (down - center[1]) / radii[1]
    turn = np.arctan2(dy, dx)
    ragged = 1 + sum(rng.uniform(0.01, 0.05) * np.cos(n * turn + rng.uniform(0, 6)) for n in (2, 3, 5, 8, 13))
    distance = np.hypot(dx, dy) / ragged
    inside = distance < 1
    core = 0.035 * np.exp(0.4 * _smooth_noise(rng, (6, 6)))
    weight = 1 / (1 + np.exp(np.clip((distance - 1) / 0.035, -30, 30)))
    out = echo * (1 - weight) + core * weight + 0.5 * np.exp(-(((distance - 1.06) / 0.05) ** 2))
    # what lies behind gets less sound, the less the more mass is above it
    above = np.cumsum(inside, axis=0) * (_RADII[1] - _RADII[0]) / _SAMPLES
    shadow = np.exp(-rng.uniform(1.2, 1.8) * ndimage.gaussian_filter(above * ~inside, (0, 3)))
    return out * np.where(inside, 1, shadow), inside


def _speckle(rng: np.random.Generator) -> np.ndarray:
    """Return fully developed speckle of mean square 1 on the scan lines."""
    real, imaginary = (
        ndimage.gaussian_filter(rng.standard_normal((_SAMPLES, _LINES), np.float32), (1.1, 1.3)) for _ in range(2)
    )
    magnitude = np.hypot(real, imaginary)
    return magnitude / np.sqrt((magnitude**2).mean())


def _draw_scales(image: np.ndarray) -> None:
    """Draw a gray bar at the left and a mark every cm of depth at the right, in place."""
    image[30:190, 10:20] = np.linspace(1, 0, 160, dtype=np.float32)[:, None]
    for centimetre in range(8):
        row = round((centimetre + _RADII[0] + _CENTER[0]) / ULTRASOUND_SPACING)
        image[row : row + 2, 628 - 6 * (centimetre % 5 == 0) : 636] = 0.8
