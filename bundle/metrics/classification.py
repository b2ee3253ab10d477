# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Figures for findings: AUROC of every class with bootstrap intervals over patients, and average precision."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from bundle.metrics.calibration import expected_calibration_error
from bundle.metrics.operating_points import compute_operating_point

__all__ = ["MeanAUROC", "class_aurocs", "compute_classification_metrics", "patient_bootstrap"]


def class_aurocs(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """
    Return the area under the receiver operating characteristic of every class, ties counted half.

    All classes at once from ranks (the Mann-Whitney statistic), because the bootstrap asks a thousand times.

    Args:
        probabilities: any scores, larger for positive, shape ``(N, K)``.
        targets: zeros and ones, shape ``(N, K)``.

    Returns:
        areas of shape ``(K,)``; NaN for a class without positives or without negatives.
    """
    positive = targets.sum(axis=0)
    negative = len(targets) - positive
    ranks = (rankdata(probabilities, axis=0) * targets).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ranks - positive * (positive + 1) / 2) / (positive * negative)


class MeanAUROC(CumulativeIterationMetric):
    """
    Mean of the classes' areas, for the choice of the best epoch.

    MONAI's ``ROCAUCMetric`` is not a number as soon as one class is absent from the validation images; here such a
    class has no part in the mean, and without any class the mean is 0.
    """

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return y_pred, y

    def aggregate(self) -> float:
        """Return the mean over all that was added: scores and targets of shape ``(B, K)``."""
        y_pred, y = self.get_buffer()
        areas = class_aurocs(y_pred.float().cpu().numpy(), y.cpu().numpy() > 0.5)
        return float(np.nanmean(areas)) if not np.isnan(areas).all() else 0.0


def patient_bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    patients: Sequence[Hashable],
    num_samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> np.ndarray:
    """
    Return percentile intervals of a statistic under resampling of whole patients.

    Args:
        statistic: takes image numbers, returns values of shape ``(M,)``, NaN where it is not defined.
        patients: patient of every image.
        num_samples: number of bootstrap samples.
        level: coverage, in (0, 1).
        seed: of the draws.

    Returns:
        lower and upper ends, shape ``(2, M)``; NaN where no sample was defined.
    """
    generator = np.random.default_rng(seed)
    codes = np.unique([str(p) for p in patients], return_inverse=True)[1]
    images = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    values = []
    for _ in range(num_samples):
        drawn = generator.integers(0, len(images), len(images))
        values.append(statistic(np.concatenate([images[i] for i in drawn])))
    table = np.stack(values)
    ends = np.full((2, table.shape[1]), np.nan)
    defined = ~np.isnan(table).all(axis=0)
    ends[:, defined] = np.nanquantile(table[:, defined], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return ends


def compute_classification_metrics(
    probabilities: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str],
    patients: Sequence[Hashable] | None = None,
    thresholds: Sequence[float] | None = None,
    num_samples: int = 1000,
) -> dict[str, Any]:
    """
    Return the figures of every class and their means.

    Args:
        probabilities: 0..1, shape ``(N, K)``.
        targets: zeros and ones, shape ``(N, K)``.
        classes: names, length ``K``.
        patients: patient of every image, for the bootstrap; ``None`` counts every image as one.
        thresholds: operating point of every class, chosen on other images; ``None`` for none.
        num_samples: bootstrap samples for the 95 % intervals.

    Returns:
        ``images``, ``mean_auroc``, ``mean_auroc_interval``, ``mean_average_precision``, ``mean_calibration_error``, and
        ``classes``: for every name ``positives``, ``auroc``, ``auroc_interval``, ``average_precision``,
        ``calibration_error`` and what :py:func:`compute_operating_point` returns. Classes without positives or without
        negatives have no AUROC and no part in the means.

    Raises:
        ValueError: When the shapes differ or a probability is not in [0, 1].
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(targets).astype(int)
    if p.shape != y.shape or p.ndim != 2 or p.shape[1] != len(classes):
        raise ValueError(f"probabilities and targets must have shape (N, {len(classes)}), got {p.shape} and {y.shape}.")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must be in [0, 1], some are not.")
    areas = class_aurocs(p, y)

    def statistic(index: np.ndarray) -> np.ndarray:
        values = class_aurocs(p[index], y[index])
        known = values[~np.isnan(values)]
        return np.append(values, known.mean() if len(known) else np.nan)

    ends = patient_bootstrap(statistic, range(len(p)) if patients is None else patients, num_samples)
    table: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(classes):
        row: dict[str, Any] = {"positives": int(y[:, k].sum())}
        if not np.isnan(areas[k]):
            row["auroc"], row["auroc_interval"] = float(areas[k]), ends[:, k].tolist()
            row["average_precision"] = float(average_precision_score(y[:, k], p[:, k]))
        row["calibration_error"] = expected_calibration_error(p[:, k], y[:, k])
        if thresholds is not None:
            row |= compute_operating_point(p[:, k], y[:, k], thresholds[k])
        table[name] = row

    def mean(figure: str) -> float:
        values = [row[figure] for row in table.values() if figure in row]
        return float(np.mean(values)) if values else float("nan")

    return {
        "images": len(p),
        "mean_auroc": mean("auroc"),
        "mean_auroc_interval": ends[:, -1].tolist(),
        "mean_average_precision": mean("average_precision"),
        "mean_calibration_error": mean("calibration_error"),
        "classes": table,
    }
