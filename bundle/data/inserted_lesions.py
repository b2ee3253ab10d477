# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Insert lesions of known place and size into real normal radiographs, to measure localization with.

The results are *inserted* lesions on real radiographs, not patients: they measure a method, never a diagnosis.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["INSERTED_KINDS", "insert_lesion"]

INSERTED_KINDS = ("nodule", "mass", "effusion")

# radius as a fraction of the shorter side, and added display brightness at the thickest point
_SIZES = {"nodule": (0.025, 0.05), "mass": (0.07, 0.13)}
_CONTRASTS = {"nodule": (0.15, 0.28), "mass": (0.15, 0.3), "effusion": (0.25, 0.4)}
# centers within the lungs of an upright frontal radiograph, as fractions of the rows and of the columns of either side
_LUNG_ROWS, _LUNG_COLUMNS = (0.25, 0.65), ((0.18, 0.38), (0.62, 0.82))


def insert_lesion(image: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """
    Return a radiograph with one inserted lesion, and the lesion's box.

    A nodule or mass is a ball seen in projection (brightness follows the thickness ``sqrt(1 - r^2)``) whose radius
    wavers with the angle; an effusion-like opacity fills the lower outer corner of one lung below a meniscus. Both have a
    blurred edge and slightly uneven density, and add attenuation to what lies there, so ribs shine through.

    Args:
        image: display values 0..1, white is dense, shape ``(H, W)``; an upright frontal radiograph.
        kind: one of ``INSERTED_KINDS``.
        rng: place, size, contrast and texture come from it alone.

    Returns:
        display values 0..1, float32, shape ``(H, W)``; and the box around all that is at least a quarter as dense as
        the densest point, as left, upper, right, lower edge in pixels, shape ``(4,)``.

    Raises:
        ValueError: When ``kind`` is unknown or the image is not two-dimensional.
    """
    if kind not in INSERTED_KINDS:
        raise ValueError(f"kind must be one of {list(INSERTED_KINDS)}, got '{kind}'.")
    if image.ndim != 2:
        raise ValueError(f"image must be of shape (H, W), got {image.shape}.")
    density = _effusion(image.shape, rng) if kind == "effusion" else _ball(image.shape, _SIZES[kind], rng)
    texture = ndimage.gaussian_filter(rng.standard_normal(image.shape), 0.01 * min(image.shape))
    density = density * (1 + 0.1 * texture / texture.std())
    density = np.clip(density / density.max(), 0, 1)
    contrast = rng.uniform(*_CONTRASTS[kind])
    # what is already white cannot become whiter: the gain falls with the brightness beneath
    out = image + contrast * density * (1 - 0.6 * image)
    rows, columns = np.nonzero(density >= 0.25)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float32)
    return np.clip(out, 0, 1).astype(np.float32), box


def _ball(shape: tuple[int, ...], size: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Thickness of a ball with a wavering radius, blurred, 0..1."""
    height, width = shape
    radius = rng.uniform(*size) * min(shape)
    column = rng.uniform(*_LUNG_COLUMNS[rng.integers(2)]) * width
    row = rng.uniform(*_LUNG_ROWS) * height
    y, x = np.mgrid[:height, :width]
    angle = np.arctan2(y - row, x - column)
    waves = sum(rng.uniform(0, 0.09) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 5))
    distance = np.hypot(y - row, (x - column) * rng.uniform(0.85, 1.15)) / (radius * (1 + waves))
    return ndimage.gaussian_filter(np.sqrt(np.clip(1 - distance**2, 0, None)), 0.12 * radius)


def _effusion(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """An opacity in the lower outer corner of one lung, higher at the chest wall than in the middle, 0..1."""
    height, width = shape
    bottom = rng.uniform(0.8, 0.88) * height
    level = bottom - rng.uniform(0.14, 0.3) * height
    outer, inner = rng.uniform(0.08, 0.12) * width, rng.uniform(0.34, 0.42) * width
    y, x = np.mgrid[:height, :width]
    if rng.integers(2):
        x = width - 1 - x
    across = np.clip((x - outer) / (inner - outer), 0, 1)
    surface = level + (bottom - level) * across**1.5  # the meniscus
    inside = (x >= outer) & (x <= inner) & (y >= surface) & (y <= bottom)
    depth = np.clip((y - surface) / (0.5 * (bottom - level)), 0, 1)  # denser further down
    return ndimage.gaussian_filter(inside * (0.55 + 0.45 * depth), 0.012 * min(shape))
