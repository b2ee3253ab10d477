# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics of findings: AUROC of every class with bootstrap intervals over patients, and average precision."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from bundle.classification.operating_points import compute_operating_point
from bundle.classification.temperature import expected_calibration_error
from bundle.rules import class_names
from bundle.training.auroc import class_aurocs, patient_bootstrap
from bundle.training.finite import check_probabilities

__all__ = [
    "compute_classification_metrics",
]


def compute_classification_metrics(
    probabilities: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str],
    patients: Sequence[Hashable] | None = None,
    thresholds: Sequence[float | None] | None = None,
    num_samples: int = 1000,
    images: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """
    Return the metrics of every class and their means.

    Args:
        probabilities: 0..1, shape ``(N, K)``.
        targets: zeros and ones, shape ``(N, K)``.
        classes: names, length ``K``.
        patients: patient of every image, for the bootstrap; ``None`` counts every image as one.
        thresholds: operating point of every class, chosen on other images, ``None`` for a class without one; ``None``
            for none at all.
        num_samples: bootstrap samples for the 95 % intervals.
        images: name of every image, for messages.

    Returns:
        ``images``, ``classes`` and what can be computed of ``mean_auroc``, ``mean_auroc_interval``,
        ``mean_average_precision``; ``mean_over``, the classes that these means are over, and
        ``mean_calibration_error``, over all. ``classes`` holds for every name ``positives``, ``auroc``,
        ``auroc_interval``, ``average_precision``, ``calibration_error`` and what
        :py:func:`compute_operating_point` returns. A class without positives or without negatives has no AUROC and no
        average precision, its ``note`` says so, and it is not in ``mean_over``. The interval of the mean is over the
        bootstrap samples in which every class of ``mean_over`` has both.

    Raises:
        ValueError: When the shapes differ, a probability is not finite or not in [0, 1], or a target not 0 or 1.
    """
    names = class_names(list(classes))
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(targets)
    if p.shape != y.shape or p.ndim != 2 or p.shape[1] != len(names):
        raise ValueError(f"probabilities and targets must have shape (N, {len(names)}), got {p.shape} and {y.shape}.")
    if not len(p):
        raise ValueError("metrics need one image at least, got none.")
    check_probabilities(p, y, images, names)
    y = y.astype(int)
    areas = class_aurocs(p, y)
    defined = ~np.isnan(areas)

    def statistic(index: np.ndarray) -> np.ndarray:
        values = class_aurocs(p[index], y[index])
        # a mean over other classes would be another metric
        return np.append(values, values[defined].mean() if defined.any() else np.nan)

    ends = patient_bootstrap(statistic, range(len(p)) if patients is None else patients, num_samples)
    table: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(names):
        row: dict[str, Any] = {"positives": int(y[:, k].sum())}
        if defined[k]:
            row["auroc"], row["auroc_interval"] = float(areas[k]), ends[:, k].tolist()
            row["average_precision"] = float(average_precision_score(y[:, k], p[:, k]))
        else:
            row["note"] = "no AUROC: no image has it" if not row["positives"] else "no AUROC: every image has it"
        row["calibration_error"] = expected_calibration_error(p[:, k], y[:, k])
        if thresholds is not None and thresholds[k] is not None:
            row |= compute_operating_point(p[:, k], y[:, k], float(thresholds[k]))  # type: ignore[arg-type]
        table[name] = row
    metrics: dict[str, Any] = {"images": len(p)}
    if defined.any():
        metrics["mean_auroc"] = float(areas[defined].mean())
        if not np.isnan(ends[:, -1]).any():
            metrics["mean_auroc_interval"] = ends[:, -1].tolist()
        precisions = [row["average_precision"] for row in table.values() if "average_precision" in row]
        metrics["mean_average_precision"] = float(np.mean(precisions))
    metrics["mean_over"] = [name for name, known in zip(names, defined, strict=True) if known]
    metrics["mean_calibration_error"] = float(np.mean([row["calibration_error"] for row in table.values()]))
    metrics["classes"] = table
    return metrics
