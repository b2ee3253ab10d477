# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""PNG, JPEG, TIFF and BMP by Pillow, as a viewer shows them."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from bundle.reading.limits import Limits

__all__ = ["picture_frames", "read_picture", "scaled_to_unit"]


def picture_frames(file: Path | BinaryIO, limits: Limits) -> int:
    """
    Return how many pages a picture has, from its header.

    Args:
        file: path or open file.
        limits: what fits.

    Raises:
        UnreadableImageError: When the first page is too large.
    """
    with Image.open(file) as image:
        frames = getattr(image, "n_frames", 1)
        _check_size(image, limits)
    return frames


def read_picture(file: Path | BinaryIO, frame: int, limits: Limits) -> tuple[np.ndarray, dict]:
    """
    Return display values 0..1 and what is known about them.

    The EXIF orientation is applied. Palettes become color, alpha is left out, 8 and 16 bits keep their full range,
    other depths are scaled from their smallest to their largest value.

    Args:
        file: path or open file.
        frame: page, from 0.
        limits: what fits; pages differ in size.

    Returns:
        float32, shape ``(C, H, W)`` with C = 1 or 3; metadata without spacing, since pictures rarely state a true one.

    Raises:
        UnreadableImageError: When the page is too large.
    """
    with Image.open(file) as image:
        image.seek(frame)
        _check_size(image, limits)
        # TIFF 6.0, PhotometricInterpretation: 0 is WhiteIsZero, which Pillow turns for up to 8 bits only
        negative = _is_deep(image) and getattr(image, "tag_v2", {}).get(262) == 0
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("1", "LA", "La"):
            upright = upright.convert("L")
        elif upright.mode not in ("L", "RGB") and not _is_deep(upright):
            upright = upright.convert("RGB")  # palettes, alpha, CMYK, YCbCr
        array = np.asarray(upright)
    values = 1 - scaled_to_unit(array) if negative else scaled_to_unit(array)
    values = values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)
    return values, {"decoder": f"pillow {Image.__version__}"}


def scaled_to_unit(array: np.ndarray) -> np.ndarray:
    """
    Return float32 values 0..1: unsigned 8 and 16 bits by their full range, the rest from its smallest to its largest.

    Args:
        array: pixel values of any shape.

    Example:
        >>> scaled_to_unit(np.array([0, 255], dtype=np.uint8)).tolist(), scaled_to_unit(np.array([-3, 1])).tolist()
        ([0.0, 1.0], [0.0, 1.0])
    """
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:  # in either byte order
        return array.astype(np.float32) / np.iinfo(array.dtype).max
    low, high = float(array.min()), float(array.max())
    return ((array - np.float64(low)) / (high - low or 1)).astype(np.float32)


def _check_size(image: Image.Image, limits: Limits) -> None:
    """Refuse a page that is too large, by its header."""
    limits.check(image.width * image.height * len(image.getbands()) * (4 if _is_deep(image) else 1))


def _is_deep(image: Image.Image) -> bool:
    """Return whether a gray picture has more than 8 bits."""
    return image.mode == "F" or image.mode.startswith("I")
