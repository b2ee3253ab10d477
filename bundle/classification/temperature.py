# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Do probabilities mean what they say: reliability bins, calibration error, temperature."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from monai.metrics.calibration import calibration_binning
from scipy.optimize import minimize_scalar

from bundle.rules import whole_number
from bundle.training.finite import check_finite, check_probabilities, check_targets

__all__ = ["expected_calibration_error", "fit_temperature", "reliability_bins"]


def reliability_bins(
    probabilities: np.ndarray, targets: np.ndarray, num_bins: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return mean probability, share of positives and number of images in equal bins of probability, by MONAI.

    Args:
        probabilities: 0..1, shape ``(N,)``.
        targets: zeros and ones, shape ``(N,)``.
        num_bins: number of bins.

    Returns:
        three arrays of shape ``(num_bins,)``; NaN and NaN and 0 for an empty bin.

    Raises:
        ValueError: When there is no image, a probability is not in [0, 1], or a target not 0 or 1.
    """
    whole_number("num_bins", num_bins)
    check_probabilities(probabilities, targets)
    if not len(probabilities):
        raise ValueError("reliability needs one image at least, got none.")
    p, y = (torch.as_tensor(np.asarray(v, dtype=np.float64)).view(1, 1, -1) for v in (probabilities, targets))
    mean, share, count = (v[0, 0].numpy() for v in calibration_binning(p, y, num_bins))
    return mean, share, count


def expected_calibration_error(probabilities: np.ndarray, targets: np.ndarray, num_bins: int = 10) -> float:
    """
    Return the gap between probability and share of positives, averaged over bins by their images.

    Naeini et al., 2015; Guo et al., 2017 (arXiv:1706.04599, Eq. 3), here for the probability of one class. Few images
    make it large by chance alone, so compare it only between models on the same images.

    Args:
        probabilities: 0..1, shape ``(N,)``.
        targets: zeros and ones, shape ``(N,)``.
        num_bins: number of equal bins.

    Returns:
        the error, 0..1.

    Raises:
        ValueError: When there is no image, a probability is not in [0, 1], or a target not 0 or 1.
    """
    mean, share, count = reliability_bins(probabilities, targets, num_bins)
    return float(np.nansum(np.abs(mean - share) * count) / count.sum())  # NaN stands for an empty bin only


def fit_temperature(
    logits: torch.Tensor,
    targets: torch.Tensor,
    exclusive: bool,
    images: Sequence[Hashable] | None = None,
    classes: Sequence[str] | None = None,
) -> float:
    """
    Return the temperature whose division of the logits makes the targets most likely.

    Guo et al., 2017 (arXiv:1706.04599). The targets are softened as if every outcome had been seen once more (Platt,
    1999): few images that are all classified right would otherwise ask for a temperature of 0.

    Args:
        logits: of validation images, shape ``(N, K)``.
        targets: zeros and ones, shape ``(N, K)``.
        exclusive: softmax over the classes, where exactly one holds; otherwise a sigmoid for each.
        images: name of every image, for messages.
        classes: name of every class, for messages.

    Returns:
        the temperature, between 0.05 and 20.

    Raises:
        ValueError: When there is no image, a logit is not finite, or a target not 0 or 1.
    """
    if not len(logits):
        raise ValueError("a temperature needs one image at least, got none.")
    check_finite("logits", logits.numpy(), images, classes)
    check_targets(targets.numpy(), images)
    logits, outcomes = logits.double(), targets.shape[1] if exclusive else 2
    soft = (targets.double() * len(targets) + 1) / (len(targets) + outcomes)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if exclusive:
            return float(F.cross_entropy(scaled, soft))
        return float(F.binary_cross_entropy_with_logits(scaled, soft))

    bound = np.log(20.0)
    return float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x))
