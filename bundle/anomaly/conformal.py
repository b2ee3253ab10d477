# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Split-conformal p-values and thresholds from the scores of held-back normal images."""

from __future__ import annotations

import math

import torch

from bundle.rules import number_in

__all__ = ["conformal_p_values", "conformal_threshold", "normals_needed", "promised_threshold"]


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
        ValueError: When there is no calibration score, or a score is not finite: NaN would be sorted behind all others
            and get the smallest p-value, infinity is no distance.

    Example:
        >>> conformal_p_values(torch.tensor([0.0, 2.5, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([1.0000, 0.5000, 0.2500], dtype=torch.float64)
    """
    _check(calibration)
    if not scores.isfinite().all():
        raise ValueError(f"scores must be finite, {int((~scores.isfinite()).sum())} of {scores.numel()} are not.")
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
        ValueError: When the rate is not in (0, 1), there is no calibration score, or one is not finite.

    Example:
        >>> conformal_threshold(torch.arange(1.0, 20.0), 0.1)
        18.0
    """
    number_in("false_alarm_rate", false_alarm_rate, 0, 1, without_low=True, without_high=True)
    _check(calibration)
    n = calibration.numel()
    allowed = math.floor(false_alarm_rate * (n + 1) + 1e-9) - 1  # calibration scores that may lie above
    if allowed < 0:
        return math.inf
    return float(calibration.detach().double().flatten().sort(descending=True).values[allowed])


def promised_threshold(calibration: torch.Tensor, false_alarm_rate: float) -> float:
    """
    Return :py:func:`conformal_threshold` for a rate that was wished for, or say why there is none.

    Args:
        calibration: scores of held-back normal images, shape ``(n,)``.
        false_alarm_rate: wanted share of false alarms among normal images, in (0, 1).

    Returns:
        the threshold in score units, finite.

    Raises:
        ValueError: When the rate is not in (0, 1), there is no calibration score, one is not finite, or there are too
            few of them for the rate.

    Example:
        >>> promised_threshold(torch.arange(1.0, 20.0), 0.01)
        Traceback (most recent call last):
        ValueError: false_alarm_rate must be at least 0.05, the least that 19 normals can promise, got 0.01.
    """
    threshold = conformal_threshold(calibration, false_alarm_rate)
    if math.isinf(threshold):
        n = calibration.numel()
        least = math.ceil(1e4 / (n + 1)) / 1e4  # rounded up, so that it can be given
        raise ValueError(
            f"false_alarm_rate must be at least {least:g}, the least that {n} normals can promise, "
            f"got {false_alarm_rate:g}."
        )
    return threshold


def normals_needed(false_alarm_rate: float) -> int:
    """
    Return how many normal images a false-alarm rate needs: ``n >= 1 / rate - 1`` (Vovk et al., 2005).

    Args:
        false_alarm_rate: in (0, 1).

    Raises:
        ValueError: When it is out of range.

    Example:
        >>> normals_needed(0.05), normals_needed(0.1)
        (19, 9)
    """
    number_in("false_alarm_rate", false_alarm_rate, 0, 1, without_low=True, without_high=True)
    return math.ceil((1 - 1e-9) / false_alarm_rate - 1)


def _check(calibration: torch.Tensor) -> None:
    if calibration.numel() == 0:
        raise ValueError("calibration must hold at least one score, got none.")
    if not calibration.isfinite().all():
        unfit = int((~calibration.isfinite()).sum())
        raise ValueError(f"calibration must hold finite scores, {unfit} of {calibration.numel()} are not.")
