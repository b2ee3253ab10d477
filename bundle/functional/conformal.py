# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Split-conformal p-values and thresholds from the scores of held-back normal images."""

from __future__ import annotations

import math

import torch

__all__ = ["conformal_p_values", "conformal_threshold"]


def conformal_p_values(scores: torch.Tensor, calibration: torch.Tensor) -> torch.Tensor:
    r"""
    Return how rare each score is among normal images.

    .. math:: p = \frac{1 + \#\{i : c_i \ge s\}}{n + 1}

    (Vovk et al., 2005; Bates et al., 2023, https://arxiv.org/abs/2104.08279). For a new normal image that is
    exchangeable with the ``n`` calibration images, ``P(p <= a) <= a`` for every ``a``.

    Args:
        scores: any shape, larger is more abnormal.
        calibration: scores of normal images the model was not trained on, shape ``(n,)``, ``n >= 1``.

    Returns:
        p-values in ``[1 / (n + 1), 1]``, shape of ``scores``, float64.

    Raises:
        ValueError: When there is no calibration score.

    Example:
        >>> conformal_p_values(torch.tensor([0.0, 2.5, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([1.0000, 0.5000, 0.2500], dtype=torch.float64)
    """
    if calibration.numel() == 0:
        raise ValueError("calibration must hold at least one score, got none.")
    ordered = calibration.double().flatten().sort().values
    below = torch.searchsorted(ordered, scores.double().contiguous())  # how many are smaller than the score
    return (1 + ordered.numel() - below).double() / (ordered.numel() + 1)


def conformal_threshold(calibration: torch.Tensor, false_alarm_rate: float) -> float:
    """
    Return the score above which an image is called abnormal, so that at most a wanted share of normals is.

    It is the smallest calibration score ``t`` such that ``score > t`` means ``p <= false_alarm_rate``.

    Args:
        calibration: scores of held-back normal images, shape ``(n,)``.
        false_alarm_rate: wanted share of false alarms among normal images, in (0, 1).

    Returns:
        the threshold in score units; infinity when ``n + 1 < 1 / false_alarm_rate``, where so few normals can promise
        no such rate.

    Raises:
        ValueError: When the rate is not in (0, 1) or there is no calibration score.

    Example:
        >>> conformal_threshold(torch.arange(1.0, 20.0), 0.1)
        18.0
    """
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate must be in (0, 1), got {false_alarm_rate}.")
    n = calibration.numel()
    if n == 0:
        raise ValueError("calibration must hold at least one score, got none.")
    allowed = math.floor(false_alarm_rate * (n + 1) + 1e-9) - 1  # calibration scores that may lie above
    if allowed < 0:
        return math.inf
    return float(calibration.detach().double().flatten().sort(descending=True).values[allowed])
