# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Thresholds on probabilities: chosen on validation images, judged on others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from bundle.rules import number_in
from bundle.training.finite import check_probabilities

__all__ = [
    "choose_threshold",
    "compute_operating_point",
    "roc_points",
    "threshold_of",
    "thresholds_of",
    "wilson_interval",
]


def roc_points(probabilities: np.ndarray, targets: np.ndarray, most: int | None = 200) -> dict[str, Any] | None:
    """
    Return the operating points that one class's images offer, few enough to be kept in a model's file.

    Args:
        probabilities: 0..1, shape ``(N,)``.
        targets: zeros and ones, shape ``(N,)``.
        most: number of points; they are spread evenly along the curve. ``None`` keeps all.

    Returns:
        ``positives`` and ``negatives`` (numbers of images), and lists of one length: ``thresholds``, falling, each
        half-way between two probabilities, so that rounding cannot move an image across it, and the shares of the
        positives (``tpr``) and of the negatives (``fpr``) at or above them. ``None`` where the images have no positive
        or no negative.

    Raises:
        ValueError: When a probability is not in [0, 1], or a target not 0 or 1.
    """
    check_probabilities(probabilities, targets)
    positives = int((np.asarray(targets) == 1).sum())
    negatives = len(targets) - positives
    if not positives or not negatives:
        return None
    fpr, tpr, values = roc_curve(targets, probabilities, drop_intermediate=False)
    upper = np.append(1.0, values[1:])  # scikit-learn's first threshold is infinite
    thresholds = (upper + np.append(values[1:], 0.0)) / 2
    apart = np.append(values[1] < 1, np.ones(len(values) - 1, dtype=bool))  # nothing lies above a probability of 1
    fpr, tpr, thresholds = fpr[apart], tpr[apart], thresholds[apart]
    if most is not None and len(fpr) > most:
        way = fpr + tpr  # 0..2 along the curve
        kept = np.unique(np.searchsorted(way, np.linspace(0, 2, most)).clip(0, len(way) - 1))
        fpr, tpr, thresholds = fpr[kept], tpr[kept], thresholds[kept]
    return {
        "positives": positives,
        "negatives": negatives,
        "thresholds": thresholds.tolist(),
        "tpr": tpr.tolist(),
        "fpr": fpr.tolist(),
    }


def threshold_of(
    roc: Mapping[str, Any], sensitivity: float | None = None, specificity: float | None = None, name: str = "the class"
) -> float:
    """
    Return the threshold of an operating point; a probability at or above it is called positive.

    A wished sensitivity or specificity is promised for new images, not only reached on these: of ``n`` positives at
    most ``(1 - sensitivity) (n + 1) - 1`` may lie below the threshold, so that a new positive, exchangeable with them,
    does so with a probability of at most ``1 - sensitivity`` (Vovk et al., 2005), and in the same way for negatives.

    Args:
        roc: what :py:func:`roc_points` returned.
        sensitivity: the largest threshold that promises it, in (0, 1).
        specificity: the smallest threshold that promises it, in (0, 1). Without either, the largest sum of sensitivity
            and specificity on these images (Youden, 1950).
        name: of the class, for messages.

    Raises:
        ValueError: When both are given, one is not in (0, 1), or the images are too few to promise it.

    Example:
        >>> roc = roc_points(np.array([0.1, 0.2, 0.4, 0.6, 0.7, 0.9]), np.array([0, 0, 1, 0, 1, 1]))
        >>> round(threshold_of(roc), 6), round(threshold_of(roc, sensitivity=0.5), 6)
        (0.3, 0.65)
        >>> threshold_of(roc, sensitivity=0.9, name="Mass")
        Traceback (most recent call last):
        ValueError: sensitivity must be at most 0.75, the most that 3 positive images of Mass can promise, got 0.9.
    """
    tpr, fpr = np.asarray(roc["tpr"]), np.asarray(roc["fpr"])
    if sensitivity is not None and specificity is not None:
        raise ValueError(f"one of sensitivity and specificity can be wished for, got {sensitivity} and {specificity}.")
    if sensitivity is not None:
        missed = _allowed("sensitivity", sensitivity, roc["positives"], f"positive images of {name}")
        best = int(np.argmax(np.round((1 - tpr) * roc["positives"]) <= missed))
    elif specificity is not None:
        alarms = _allowed("specificity", specificity, roc["negatives"], f"negative images of {name}")
        reached = np.flatnonzero(np.round(fpr * roc["negatives"]) <= alarms)
        if not len(reached):  # as many negatives as this have a probability of 1
            raise ValueError(f"specificity of {name} cannot be {specificity:g}: no threshold on its images reaches it.")
        best = int(reached[-1])
    else:
        best = int(np.argmax(tpr - fpr))
    return float(roc["thresholds"][best])


def thresholds_of(
    roc: Mapping[str, Mapping[str, Any] | None],
    sensitivity: float | None = None,
    specificity: float | None = None,
    findings: Sequence[str] | None = None,
) -> dict[str, float | None]:
    """
    Return the operating points of all classes for a wish, from the curves that a calibration keeps.

    Args:
        roc: of every class what :py:func:`roc_points` returned: ``roc`` of
            :py:func:`bundle.classification.read_classifier_calibration`.
        sensitivity: see :py:func:`threshold_of`.
        specificity: see :py:func:`threshold_of`.
        findings: classes that the wish is for; the others, such as that of no finding, get Youden's point. ``None`` for
            all.

    Returns:
        threshold by class, ``None`` for a class without a curve.

    Raises:
        ValueError: When no curve was kept, or the images of a class are too few to promise what was wished for.
    """
    if not any(roc.values()):
        raise ValueError("this calibration keeps no 'roc' to choose an operating point from; calibrate again.")
    wish = {"sensitivity": sensitivity, "specificity": specificity}
    return {
        name: None
        if curve is None
        else threshold_of(curve, name=f"'{name}'", **(wish if findings is None or name in findings else {}))
        for name, curve in roc.items()
    }


def choose_threshold(
    probabilities: np.ndarray, targets: np.ndarray, sensitivity: float | None = None, name: str = "the class"
) -> float | None:
    """
    Return the threshold of an operating point from the images themselves, see :py:func:`threshold_of`.

    Args:
        probabilities: 0..1, shape ``(N,)``.
        targets: zeros and ones, shape ``(N,)``.
        sensitivity: the largest threshold that promises it, in (0, 1); ``None`` for Youden's.
        name: of the class, for messages.

    Returns:
        a threshold half-way between two probabilities; ``None`` where the images have no positive or no negative, which
        can say nothing about any threshold.

    Raises:
        ValueError: When ``sensitivity`` is not in (0, 1) or more than the images can promise, a probability is not in
            [0, 1], or a target not 0 or 1.
    """
    if sensitivity is not None:
        number_in("sensitivity", sensitivity, 0, 1, without_low=True, without_high=True)
    roc = roc_points(probabilities, targets, most=None)
    return None if roc is None else threshold_of(roc, sensitivity, name=name)


def compute_operating_point(probabilities: np.ndarray, targets: np.ndarray, threshold: float) -> dict[str, Any]:
    """
    Return sensitivity and specificity at a threshold with 95 % Wilson intervals, and the predictive values.

    Args:
        probabilities: 0..1, shape ``(N,)``.
        targets: zeros and ones, shape ``(N,)``.
        threshold: chosen on other images, finite.

    Returns:
        ``threshold``, and what is defined of ``sensitivity``, ``specificity``, ``positive_predictive_value``,
        ``negative_predictive_value``, each with ``..._interval``. Predictive values hold for the prevalence of these
        images only.

    Raises:
        ValueError: When the threshold is not finite, a probability is not in [0, 1], or a target not 0 or 1.
    """
    check_probabilities(probabilities, targets)
    number_in("threshold", float(threshold), -math.inf)
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


def _allowed(name: str, share: float, count: int, images: str) -> int:
    """Return how many of ``count`` images may lie on the wrong side of a threshold that promises ``share``."""
    number_in(name, share, 0, 1, without_low=True, without_high=True)
    allowed = math.floor((1 - share) * (count + 1) + 1e-9) - 1
    if allowed < 0:
        most = count / (count + 1)
        raise ValueError(f"{name} must be at most {most:.3g}, the most that {count} {images} can promise, got {share}.")
    return allowed
