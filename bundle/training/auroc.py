# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Areas under the receiver operating characteristic, and their intervals by patient."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric
from scipy.stats import rankdata

from bundle.rules import class_names, whole_number
from bundle.training.finite import check_finite, check_targets

__all__ = ["MeanAUROC", "auroc_metric", "class_aurocs", "patient_bootstrap"]


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


def auroc_metric(scores: str, classes: Sequence[str] | None = None) -> IgniteMetricHandler:
    """
    Return :py:class:`MeanAUROC` as a metric of an engine; MONAI's is silent about a score that is not a number.

    Args:
        scores: key of the scores in the engine's output; the labels are its ``label``.
        classes: see there.
    """
    return IgniteMetricHandler(metric_fn=MeanAUROC(classes), output_transform=from_engine([scores, "label"]))


def patient_bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray],
    patients: Sequence[Hashable],
    num_samples: int = 1000,
) -> np.ndarray:
    """
    Return 95 % percentile intervals of a statistic under resampling of whole patients, the same each time.

    Args:
        statistic: takes image numbers, returns values of shape ``(M,)``, NaN where it is not defined.
        patients: patient of every image.
        num_samples: number of bootstrap samples.

    Returns:
        lower and upper ends, shape ``(2, M)``; NaN where no sample was defined.

    Raises:
        ValueError: When there is no image, or ``num_samples`` is out of range.
    """
    whole_number("num_samples", num_samples)
    if not len(patients):
        raise ValueError("a bootstrap needs one image at least, got none.")
    generator = np.random.default_rng(0)
    codes = np.unique([str(p) for p in patients], return_inverse=True)[1]
    images = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    values = []
    for _ in range(num_samples):
        drawn = generator.integers(0, len(images), len(images))
        values.append(statistic(np.concatenate([images[i] for i in drawn])))
    table = np.stack(values)
    ends = np.full((2, table.shape[1]), np.nan)
    defined = ~np.isnan(table).all(axis=0)
    ends[:, defined] = np.nanquantile(table[:, defined], [0.025, 0.975], axis=0)
    return ends
