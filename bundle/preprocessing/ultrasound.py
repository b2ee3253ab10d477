# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Keep what an ultrasound probe saw and blacken the rest. Display values 0..1 before and after."""

from __future__ import annotations

import numpy as np
from monai.config import NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_numpy, convert_to_tensor
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull

__all__ = [
    "MaskOutsideFan",
    "fan_mask",
]


def fan_mask(luminance: np.ndarray, threshold: float = 0.012) -> np.ndarray:
    """
    Return where the scanned sector is: the convex hull of the largest solid bright area.

    Solid is what still holds a square of 4 % of the shorter side after its holes are filled; letters and rulers do not.

    Args:
        luminance: display values 0..1, shape ``(H, W)``.
        threshold: brightness above which a pixel is no background; three of 255 levels by default, above JPEG's noise.

    Returns:
        bool, shape ``(H, W)``; all true where nothing is solid.
    """
    side = max(round(0.04 * min(luminance.shape)), 3)
    # morphology takes what lies outside for dark, so the image goes on beyond its edge
    bright = ndimage.binary_closing(np.pad(luminance > threshold, side, mode="edge"), np.ones((3, 3)))
    solid = ndimage.binary_opening(ndimage.binary_fill_holes(bright), np.ones((side, side)))
    areas, count = ndimage.label(solid[side:-side, side:-side])
    if count == 0:
        return np.ones(luminance.shape, dtype=bool)
    rows, columns = np.nonzero(areas == np.bincount(areas.ravel())[1:].argmax() + 1)
    points = np.stack([columns, rows], axis=1)
    corners = points[ConvexHull(points).vertices]
    canvas = Image.new("1", luminance.shape[::-1])
    ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in corners], fill=1, outline=1)
    return np.asarray(canvas)


class MaskOutsideFan(Transform):
    """
    Set everything outside the scanned sector to 0: rulers, logos, burned-in text, see :py:func:`fan_mask`.

    This hides text beside the sector from the network; it is no de-identification. Display values 0..1 throughout.

    Args:
        threshold: brightness above which a pixel is no background, 0..1.

    Raises:
        ValueError: When ``threshold`` is not in (0, 1).
    """

    backend = [TransformBackends.NUMPY]

    def __init__(self, threshold: float = 0.012) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), got {threshold}.")
        self.threshold = threshold

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """
        Return the image with black surroundings.

        Args:
            img: display values, shape ``(C, H, W)``.
        """
        values = convert_to_numpy(img)
        masked = values * fan_mask(values.max(axis=0), self.threshold)
        return convert_to_dst_type(masked, convert_to_tensor(img, track_meta=get_track_meta()))[0]
