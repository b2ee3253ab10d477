# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Contrast of radiographs and speckle of ultrasound. Display values 0..1 before and after."""

from __future__ import annotations

import itk
import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.data import get_track_meta
from monai.transforms import Transform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_numpy, convert_to_tensor

__all__ = [
    "EqualizeLocally",
    "ReduceSpeckle",
    "ScaleForeground",
]

LEVELS = 256


class ScaleForeground(Transform):
    """
    Stretch the pixels above 0 between two percentiles to 0..1 and clip the rest.

    Zero is what padding, collimation masks and the surroundings of an ultrasound fan have; left in, they would decide
    the percentiles. An image without contrast becomes 0. Display values 0..1 before, 0..1 after.

    Args:
        lower: percentile that becomes 0, 0..100.
        upper: percentile that becomes 1, above ``lower``.

    Raises:
        ValueError: When not ``0 <= lower < upper <= 100``.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]

    def __init__(self, lower: float = 0.5, upper: float = 99.5) -> None:
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"lower and upper must satisfy 0 <= lower < upper <= 100, got {lower} and {upper}.")
        self.lower, self.upper = lower, upper

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """
        Return the stretched image; the channels share one stretch, so color stays color.

        Args:
            img: display values, shape ``(C, H, W)``.
        """
        image = convert_to_tensor(img, track_meta=get_track_meta())
        values = convert_to_numpy(image)
        foreground = values[values > 0]
        low, high = np.percentile(foreground, (self.lower, self.upper)) if foreground.size else (0.0, 0.0)
        if high <= low:
            return torch.zeros_like(image)
        return ((image - float(low)) / float(high - low)).clamp(0, 1)


class EqualizeLocally(Transform):
    """
    Equalize contrast locally and within limits, by ITK's adaptive histogram equalization.

    Source: J. A. Stark, Adaptive image contrast enhancement using generalizations of histogram equalization, IEEE
    Transactions on Image Processing 9, 2000, https://doi.org/10.1109/83.841534. ITK limits contrast by Stark's alpha
    and beta, where CLAHE clips the histogram. The image is rounded to 256 levels first, which makes ITK about ten times
    faster. Each channel is treated alone. Display values 0..1 before, 0..1 after.

    Args:
        radius: half the side of the window, in pixels.
        alpha: 0 equalizes fully, 1 is unsharp masking.
        beta: 0 is unsharp masking, 1 leaves the image as it is.

    Raises:
        ValueError: When ``radius`` is below 1, or ``alpha`` or ``beta`` is not in [0, 1].
    """

    backend = [TransformBackends.NUMPY]

    def __init__(self, radius: int = 16, alpha: float = 0.3, beta: float = 0.3) -> None:
        if radius < 1 or not 0 <= alpha <= 1 or not 0 <= beta <= 1:
            raise ValueError(f"radius must be at least 1, alpha and beta in [0, 1], got {radius}, {alpha} and {beta}.")
        self.radius, self.alpha, self.beta = radius, alpha, beta

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """
        Return the equalized image.

        Args:
            img: display values, shape ``(C, H, W)``.
        """
        levels = np.rint(convert_to_numpy(img).clip(0, 1) * (LEVELS - 1)).astype(np.float32)
        channels = [
            itk.adaptive_histogram_equalization_image_filter(
                itk.image_from_array(channel), radius=[self.radius] * 2, alpha=self.alpha, beta=self.beta
            )
            for channel in levels
        ]
        result = np.stack([itk.array_from_image(channel) for channel in channels]) / (LEVELS - 1)
        return convert_to_dst_type(result.clip(0, 1), convert_to_tensor(img, track_meta=get_track_meta()))[0]


class ReduceSpeckle(Transform):
    """
    Smooth speckle and keep edges, by ITK's gradient anisotropic diffusion.

    Source: P. Perona and J. Malik, Scale-space and edge detection using anisotropic diffusion, IEEE Transactions on
    Pattern Analysis and Machine Intelligence 12, 1990, https://doi.org/10.1109/34.56205. A stored ultrasound image is
    log-compressed, so its speckle adds to the signal and this filter fits. Each channel is treated alone. Display
    values 0..1 before, 0..1 after.

    Args:
        iterations: number of steps, each of 0.125, the largest that is stable in two dimensions.
        conductance: how steep a gradient is still smoothed, in units of the mean gradient.

    Raises:
        ValueError: When ``iterations`` is below 1 or ``conductance`` is not positive.
    """

    backend = [TransformBackends.NUMPY]

    def __init__(self, iterations: int = 5, conductance: float = 1.0) -> None:
        if iterations < 1 or conductance <= 0:
            raise ValueError(
                f"iterations must be at least 1 and conductance positive, got {iterations} and {conductance}."
            )
        self.iterations, self.conductance = iterations, conductance

    def __call__(self, img: NdarrayOrTensor) -> NdarrayOrTensor:
        """
        Return the smoothed image.

        Args:
            img: display values, shape ``(C, H, W)``.
        """
        channels = [
            itk.gradient_anisotropic_diffusion_image_filter(
                itk.image_from_array(channel),
                number_of_iterations=self.iterations,
                time_step=0.125,
                conductance_parameter=self.conductance,
            )
            for channel in convert_to_numpy(img).astype(np.float32)
        ]
        result = np.stack([itk.array_from_image(channel) for channel in channels])
        return convert_to_dst_type(result.clip(0, 1), convert_to_tensor(img, track_meta=get_track_meta()))[0]
