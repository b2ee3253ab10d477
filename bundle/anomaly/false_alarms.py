# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Wanted and observed false alarms: whether a calibration keeps its promise on normal images of an evaluation."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import beta

from bundle.anomaly.conformal import conformal_p_values
from bundle.rules import number_in
from bundle.training.finite import check_targets

__all__ = ["observed_false_alarms", "share_interval"]

RATES = (0.05, 0.1, 0.2)


def share_interval(
    flagged: Sequence[int] | np.ndarray, patients: Sequence[Hashable], level: float = 0.95
) -> tuple[float, float]:
    r"""
    Return the interval of a share of images, where the images of a patient may be alike.

    The exact interval of Clopper and Pearson (1934) for as many images as the patients are worth (Korn and Graubard,
    1998, Survey Methodology 24(2), without their t quantiles): of :math:`n` images, :math:`n_j` of patient :math:`j`
    with :math:`k_j` flagged, a share :math:`s` is worth :math:`s (1 - s) n^2 / \sum_j (k_j - s n_j)^2` images, at most
    :math:`n`. Where none or all are flagged, it is the number of patients. A bootstrap would be a point there.

    Args:
        flagged: zeros and ones, length ``n``, at least one.
        patients: patient of every image.
        level: coverage, in (0, 1).

    Returns:
        lower and upper end, 0..1.

    Raises:
        ValueError: When the lengths differ or are 0, a value is neither 0 nor 1, or ``level`` is out of range.

    Example:
        >>> low, high = share_interval([0] * 10, range(10))  # 1 - 0.025 ** (1 / 10)
        >>> low, round(high, 4)
        (0.0, 0.3085)
    """
    values = np.asarray(flagged, dtype=float)
    if len(values) != len(patients) or len(values) == 0:
        raise ValueError(f"one patient is needed for each image, got {len(patients)} for {len(values)}.")
    check_targets(values)
    number_in("level", level, 0, 1, without_low=True, without_high=True)
    share, n = values.mean(), len(values)
    codes = np.unique([str(p) for p in patients], return_inverse=True)[1]
    spread = np.bincount(codes, values - share) @ np.bincount(codes, values - share)
    worth = float(codes.max() + 1) if share in (0, 1) else min(n, share * (1 - share) * n**2 / max(spread, 1e-12))
    k, tail = share * worth, (1 - level) / 2
    low = float(beta.ppf(tail, k, worth - k + 1)) if share > 0 else 0.0
    high = float(beta.ppf(1 - tail, k + 1, worth - k)) if share < 1 else 1.0
    return low, high


def observed_false_alarms(
    scores: Sequence[float],
    calibration: Sequence[float],
    patients: Sequence[Hashable] | None = None,
    rates: Sequence[float] = RATES,
) -> dict[str, Any]:
    """
    Return the share of normal images that are flagged at some wanted rates of false alarms.

    Args:
        scores: of normal images that took no part in training or calibration, finite, at least one.
        calibration: scores of the calibration, finite.
        patients: patient of every image; ``None`` counts every image as one.
        rates: wanted shares of false alarms, in (0, 1).

    Returns:
        for each rate that so many calibration scores can promise, ``false_alarms_at_PERCENT`` and its interval by
        patient, see :py:func:`share_interval`.

    Raises:
        ValueError: When a score is not finite, there is none, or a rate is out of range.

    Example:
        >>> found = observed_false_alarms([1.0, 25.0], range(1, 20), rates=(0.05, 0.01))  # 19 scores promise 1 in 20
        >>> found["false_alarms_at_5"], "false_alarms_at_1" in found
        (0.5, False)
    """
    known = torch.as_tensor(np.asarray(calibration, dtype=float))
    p = conformal_p_values(torch.as_tensor(np.asarray(scores, dtype=float)), known).numpy()
    metrics: dict[str, Any] = {}
    for rate in rates:
        number_in("rates", rate, 0, 1, without_low=True, without_high=True)
        if rate * (known.numel() + 1) < 1 - 1e-9:
            continue
        flagged = p <= rate + 1e-9
        name = f"false_alarms_at_{100 * rate:g}".replace(".", "_")
        metrics[name] = float(flagged.mean())
        metrics[f"{name}_interval"] = share_interval(flagged, range(len(p)) if patients is None else patients)
    return metrics
