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

from bundle.classification.operating_points import compute_operating_point
from bundle.classification.temperature import expected_calibration_error
from bundle.rules import class_names, number_in, whole_number
from bundle.training.finite import check_finite, check_probabilities, check_targets

__all__ = ["MeanAUROC", "class_aurocs", "compute_classification_metrics", "patient_bootstrap"]


def class_aurocs(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """
    Return the area under the receiver operating characteristic of every class, ties counted half.

    All classes at once from ranks (the Mann-Whitney statistic), because the bootstrap asks a thousand times.

    Args:
        probabilities: any scores, larger for positive, shape ``(N, K)``.
        targets: zeros and ones, shape ``(N, K)``.

    Returns:
        areas of shape ``(K,)``; NaN for a class without positives or without negatives, and for nothing else.

    Raises:
        ValueError: When a score is not a number: it would be ranked above all others.
    """
    if np.isnan(probabilities).any():
        check_finite("scores", probabilities)
    positive = targets.sum(axis=0)
    negative = len(targets) - positive
    ranks = (rankdata(probabilities, axis=0) * targets).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (ranks - positive * (positive + 1) / 2) / (positive * negative)


class MeanAUROC(CumulativeIterationMetric):
    """
    Mean of the classes' areas, for the choice of the best epoch.

    MONAI's ``ROCAUCMetric`` is not a number as soon as one class is absent from the validation images; here such a
    class has no part in the mean. Without any class there is no mean, and no best epoch.

    Args:
        classes: names, for messages; ``None`` for their numbers.
    """

    def __init__(self, classes: Sequence[str] | None = None) -> None:
        super().__init__()
        self.classes = None if classes is None else class_names(classes)

    def _compute_tensor(  # type: ignore[override]
        self, y_pred: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return y_pred, y

    def aggregate(self) -> float:
        """
        Return the mean over all that was added: scores and targets of shape ``(B, K)``, or ``(B,)`` for one class.

        Raises:
            ValueError: When a score is not finite, as after a training that diverged, a target is not 0 or 1, or no
                class has both positive and negative images.
        """
        y_pred, y = (torch.as_tensor(v).float().cpu().numpy() for v in self.get_buffer())
        y_pred, y = y_pred.reshape(len(y_pred), -1), y.reshape(len(y), -1)
        check_finite("scores of the validation images", y_pred, classes=self.classes)
        check_targets(y)
        areas = class_aurocs(y_pred, y)
        if np.isnan(areas).all():
            names = [f"class {k}" for k in range(len(areas))] if self.classes is None else list(self.classes)
            raise ValueError(
                "the validation images must have positives and negatives of one class at least, or there is no AUROC "
                f"to choose the best network by; {', '.join(names)} have only one kind in {len(y)} images."
            )
        return float(np.nanmean(areas))


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

    Raises:
        ValueError: When there is no image, or ``num_samples`` or ``level`` is out of range.
    """
    whole_number("num_samples", num_samples)
    number_in("level", level, 0, 1, without_low=True, without_high=True)
    if not len(patients):
        raise ValueError("a bootstrap needs one image at least, got none.")
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
    thresholds: Sequence[float | None] | None = None,
    num_samples: int = 1000,
    images: Sequence[Hashable] | None = None,
) -> dict[str, Any]:
    """
    Return the figures of every class and their means.

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
        raise ValueError("figures need one image at least, got none.")
    check_probabilities(p, y, images, names)
    y = y.astype(int)
    areas = class_aurocs(p, y)
    defined = ~np.isnan(areas)

    def statistic(index: np.ndarray) -> np.ndarray:
        values = class_aurocs(p[index], y[index])
        # a mean over other classes than those of the figure would be another figure
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
