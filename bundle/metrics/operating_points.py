# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Thresholds on probabilities: chosen on validation images, judged on others."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

__all__ = ["choose_threshold", "compute_operating_point", "wilson_interval"]


def choose_threshold(probabilities: np.ndarray, targets: np.ndarray, sensitivity: float | None = None) -> float:
    """
    Return the threshold of an operating point; a probability at or above it is called positive.

    Args:
        probabilities: 0..1, shape ``(N,)``.
        targets: zeros and ones, shape ``(N,)``.
        sensitivity: the largest threshold that reaches it, in (0, 1]; ``None`` for the largest sum of sensitivity and
            specificity (Youden, 1950).

    Returns:
        a threshold half-way between two probabilities, so that rounding cannot move an image across it; 0.5 where the
        images have no positive or no negative.

    Raises:
        ValueError: When ``sensitivity`` is not in (0, 1].
    """
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise ValueError(f"sensitivity must be in (0, 1], got {sensitivity}.")
    if len(np.unique(targets)) < 2:
        return 0.5
    false_rate, true_rate, thresholds = roc_curve(targets, probabilities, drop_intermediate=False)
    best = np.argmax(true_rate - false_rate) if sensitivity is None else np.argmax(true_rate >= sensitivity)
    threshold = min(float(thresholds[best]), 1.0)  # scikit-learn's first threshold is infinite
    below = probabilities[probabilities < threshold]
    return (threshold + float(below.max())) / 2 if len(below) else threshold


def compute_operating_point(probabilities: np.ndarray, targets: np.ndarray, threshold: float) -> dict[str, Any]:
    """
    Return sensitivity and specificity at a threshold with 95 % Wilson intervals, and the predictive values.

    Args:
        probabilities: 0..1, shape ``(N,)``.
        targets: zeros and ones, shape ``(N,)``.
        threshold: chosen on other images.

    Returns:
        ``threshold``, and what is defined of ``sensitivity``, ``specificity``, ``positive_predictive_value``,
        ``negative_predictive_value``, each with ``..._interval``. Predictive values hold for the prevalence of these
        images only.
    """
    called, truth = probabilities >= threshold, targets.astype(bool)
    counts = {
        "sensitivity": (int((called & truth).sum()), int(truth.sum())),
        "specificity": (int((~called & ~truth).sum()), int((~truth).sum())),
        "positive_predictive_value": (int((called & truth).sum()), int(called.sum())),
        "negative_predictive_value": (int((~called & ~truth).sum()), int((~called).sum())),
    }
    point: dict[str, Any] = {"threshold": float(threshold)}
    for name, (hits, total) in counts.items():
        if total:
            point[name], point[f"{name}_interval"] = hits / total, wilson_interval(hits, total)
    return point


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """
    Return the 95 % interval of a share (Wilson, 1927).

    Args:
        hits: from 0 to ``total``.
        total: at least 1.

    Example:
        >>> [round(v, 3) for v in wilson_interval(9, 10)]
        [0.596, 0.982]
    """
    z2 = 1.959964**2
    share, scale = hits / total, 1 + z2 / total
    center = (share + z2 / (2 * total)) / scale
    half = (z2 * (share * (1 - share) / total + z2 / (4 * total**2))) ** 0.5 / scale
    return max(center - half, 0.0), min(center + half, 1.0)
