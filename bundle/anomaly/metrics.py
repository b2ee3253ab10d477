# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics for a list of anomaly scores, by scikit-learn, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from bundle.anomaly.false_alarms import observed_false_alarms
from bundle.anomaly.shift import precedence_test
from bundle.rules import number_in, whole_number
from bundle.training.auroc import class_aurocs
from bundle.training.finite import check_finite

__all__ = ["bootstrap_interval", "compute_anomaly_metrics", "summarize_anomaly"]


def bootstrap_interval(
    labels: np.ndarray,
    scores: np.ndarray,
    metric: Callable[[np.ndarray, np.ndarray], float],
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """
    Return the percentile bootstrap interval of a metric, drawing normal and abnormal images separately.

    Args:
        labels: 0 or 1, shape ``(N,)``, both present.
        scores: shape ``(N,)``.
        metric: of labels and scores.
        samples: number of bootstrap samples.
        level: coverage, in (0, 1).
        seed: of the draws.

    Returns:
        lower and upper end.

    Raises:
        ValueError: When a label or a score cannot be computed with, or ``samples`` or ``level`` is out of range.
    """
    whole_number("samples", samples)
    number_in("level", level, 0, 1, without_low=True, without_high=True)
    check_finite("scores", scores)
    if set(np.unique(labels)) != {0, 1}:
        raise ValueError(f"labels must be 0 and 1, both present, got {sorted(set(np.unique(labels).tolist()))}.")
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == value) for value in (0, 1)]
    values = []
    for _ in range(samples):
        index = np.concatenate([generator.choice(group, len(group)) for group in groups])
        values.append(metric(labels[index], scores[index]))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compute_anomaly_metrics(
    labels: Sequence[int],
    scores: Sequence[float],
    threshold: float | None = None,
    seed: int = 0,
    images: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """
    Return AUROC and average precision with 95 % intervals, and sensitivity and specificity at a given threshold.

    Args:
        labels: 0 normal, 1 abnormal, length ``N``.
        scores: larger is more abnormal, length ``N``.
        threshold: images with a larger score are called abnormal; it must come from other images than these.
        seed: of the bootstrap.
        images: name of every image, for messages.

    Returns:
        ``images``, ``positives`` and ``negatives`` (how many are abnormal and normal) and what can be computed of
        ``auroc``, ``auroc_interval``, ``average_precision``, ``average_precision_interval``, ``threshold``,
        ``sensitivity``, ``specificity``; ``note`` says why something is missing.

    Raises:
        ValueError: When the lengths differ, a label is not 0 or 1, or a score or the threshold is not finite.
    """
    y, s = np.asarray(labels), np.asarray(scores, dtype=float)
    if y.shape != s.shape:
        raise ValueError(f"labels and scores must have one length, got {len(y)} and {len(s)}.")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"labels must be 0 or 1, got {sorted(set(y.tolist()))}.")
    y = y.astype(int)
    check_finite("scores", s, images)
    if threshold is not None:
        number_in("threshold", float(threshold), -math.inf)
    metrics: dict[str, Any] = {"images": len(y), "positives": int((y == 1).sum()), "negatives": int((y == 0).sum())}
    if metrics["positives"] and metrics["negatives"]:
        metrics["auroc"] = float(roc_auc_score(y, s))
        metrics["auroc_interval"] = bootstrap_interval(y, s, _fast_auroc, seed=seed)
        metrics["average_precision"] = float(average_precision_score(y, s))
        metrics["average_precision_interval"] = bootstrap_interval(y, s, average_precision_score, seed=seed)
    else:
        kind = "abnormal" if metrics["negatives"] else "normal"
        metrics["note"] = f"No AUROC: the list has no {kind} image."
    if threshold is not None:
        metrics["threshold"] = float(threshold)
        called = s > threshold
        if metrics["positives"]:
            metrics["sensitivity"] = float(called[y == 1].mean())
        if metrics["negatives"]:
            metrics["specificity"] = float((~called[y == 0]).mean())
    return metrics


def _fast_auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return what scikit-learn's ``roc_auc_score`` returns, ten times faster: the bootstrap asks a thousand times."""
    return float(class_aurocs(scores[:, None], labels[:, None])[0])


def summarize_anomaly(
    results: Sequence[Any],
    threshold: float | None = None,
    calibration: Mapping[str, Any] | None = None,
    items: Sequence[Mapping[str, Any]] = (),
    maps: Any = None,
) -> dict[str, Any]:
    """
    Return the metrics of labelled results, see :py:func:`compute_anomaly_metrics`; nothing where no label is known.

    Args:
        results: objects with ``label``, ``anomaly_score`` and ``key``.
        threshold: saved with the model; infinity and ``None`` mean no verdicts.
        calibration: with ``scores``, for :py:func:`bundle.anomaly.false_alarms.observed_false_alarms` of the normal
            images, and ``shift_p_higher`` and ``shift_p_lower``, see :py:func:`bundle.anomaly.shift.precedence_test`;
            ``None`` leaves them out.
        items: of the data list, with ``key`` and ``patient``; an image without a patient counts as one of its own.
        maps: a :py:class:`bundle.anomaly.MapMetrics`, whose metrics come behind; ``None`` for none.

    Raises:
        ValueError: When a labelled image has no score or one that is not finite, or the threshold is NaN.
    """
    known = [r for r in results if r.label is not None]
    if not known:
        return {}
    usable = threshold if threshold is not None and threshold != math.inf else None
    scores = [math.nan if r.anomaly_score is None else r.anomaly_score for r in known]
    names = [getattr(r, "key", number) for number, r in enumerate(known)]
    metrics = compute_anomaly_metrics([r.label for r in known], scores, usable, images=names)
    normal = [number for number, r in enumerate(known) if r.label == 0]
    if calibration is not None and normal:
        patients = {str(item["key"]): str(item["patient"]) for item in items if item["patient"]}
        whose = [patients.get(str(names[number])) or f"image {names[number]}" for number in normal]
        usual = [scores[number] for number in normal]
        metrics |= observed_false_alarms(usual, calibration["scores"], whose)
        shift = precedence_test(usual, calibration["scores"])
        metrics |= {f"shift_{name}": shift[name] for name in ("p_higher", "p_lower")}
    return metrics if maps is None else {**metrics, **maps.summarize()}
