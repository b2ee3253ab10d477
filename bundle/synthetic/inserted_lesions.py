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
_CONTRASTS = {"nodule": (0.22, 0.38), "mass": (0.2, 0.35), "effusion": (0.25, 0.4)}


def insert_lesion(
    image: np.ndarray, kind: str, rng: np.random.Generator, lungs: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return a radiograph with one inserted lesion, and the lesion's box.

    A nodule or mass is a ball seen in projection (brightness follows the thickness ``sqrt(1 - r^2)``) whose radius
    wavers with the angle, centered in a lung; an effusion-like opacity fills the lower part of one lung below a
    meniscus. Both have a blurred edge and slightly uneven density, and add attenuation to what lies there, so ribs
    shine through.

    Args:
        image: display values 0..1, white is dense, shape ``(H, W)``; an upright frontal radiograph.
        kind: one of ``INSERTED_KINDS``.
        rng: place, size, contrast and texture come from it alone.
        lungs: where the lungs are, boolean, shape ``(H, W)``; found by their darkness if ``None``.

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
    right = bool(rng.integers(2))
    lung = (
        _lung(image, right) if lungs is None else lungs & ((np.arange(image.shape[1]) >= image.shape[1] / 2) == right)
    )
    density = _effusion(lung, rng) if kind == "effusion" else _ball(lung, _SIZES[kind], rng)
    texture = ndimage.gaussian_filter(rng.standard_normal(image.shape), 0.01 * min(image.shape))
    density = density * (1 + 0.1 * texture / texture.std())
    density = np.clip(density / density.max(), 0, 1)
    contrast = rng.uniform(*_CONTRASTS[kind])
    # what is already white cannot become whiter: the gain falls with the brightness beneath
    out = image + contrast * density * (1 - 0.5 * image)
    rows, columns = np.nonzero(density >= 0.25)
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=np.float32)
    return np.clip(out, 0, 1).astype(np.float32), box


def _lung(image: np.ndarray, right: bool) -> np.ndarray:
    """The dark field in one half of the chest, or an ellipse in its usual place where none stands out."""
    height, width = image.shape
    blurred = ndimage.gaussian_filter(image, 0.012 * min(image.shape))
    center = blurred[int(0.15 * height) : int(0.8 * height), int(0.12 * width) : int(0.88 * width)]
    dark = blurred < center.mean()
    y, x = np.mgrid[:height, :width]
    usual = np.hypot((y / height - 0.47) / 0.3, (x / width - (0.7 if right else 0.3)) / 0.13)
    dark &= usual < 1.35  # the air beside the body is dark too
    labels, count = ndimage.label(ndimage.binary_opening(dark, iterations=max(1, width // 128)))
    inside = np.bincount(labels[usual < 1], minlength=count + 1)
    best = inside[1:].argmax() + 1 if count else 0
    if best == 0 or inside[best] < 0.4 * (usual < 1).sum():
        return usual < 1
    lung = ndimage.binary_closing(labels == best, iterations=max(1, width // 32))
    return ndimage.binary_fill_holes(lung)


def _ball(lung: np.ndarray, size: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """Thickness of a ball with a wavering radius, centered in the lung, blurred, 0..1."""
    radius = rng.uniform(*size) * min(lung.shape)
    rows, columns = np.nonzero(ndimage.binary_erosion(lung, iterations=max(1, round(0.5 * radius))))
    if len(rows) == 0:
        rows, columns = np.nonzero(lung)
    chosen = rng.integers(len(rows))
    y, x = np.mgrid[: lung.shape[0], : lung.shape[1]]
    y, x = y - rows[chosen], x - columns[chosen]
    angle = np.arctan2(y, x)
    waves = sum(rng.uniform(0, 0.09) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 5))
    distance = np.hypot(y, x * rng.uniform(0.85, 1.15)) / (radius * (1 + waves))
    return ndimage.gaussian_filter(np.sqrt(np.clip(1 - distance**2, 0, None)), 0.12 * radius)


def _effusion(lung: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An opacity in the lower part of a lung, higher at the chest wall than in the middle, 0..1."""
    height, width = lung.shape
    rows, columns = np.nonzero(lung)
    depth = rng.uniform(0.25, 0.5) * np.ptp(rows)
    y, x = np.mgrid[:height, :width]
    from_wall = (x - columns.min()) if columns.mean() < width / 2 else (columns.max() - x)
    across = np.clip(from_wall / np.ptp(columns), 0, 1)
    surface = rows.max() - depth * (1 - 0.6 * across**1.5)  # the meniscus
    deeper = np.clip((y - surface) / depth, 0, 1)
    return ndimage.gaussian_filter(lung * (y >= surface) * (0.6 + 0.4 * deeper), 0.012 * min(lung.shape))
