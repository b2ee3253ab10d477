# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the images of a run have the scores that the calibration promises its false-alarm rate for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import betabinom

__all__ = ["precedence_test", "score_shift"]

LEVEL = 0.001  # of each side of the test: a run that keeps the promise is warned about once in 500


def precedence_test(scores: Sequence[float], calibration: Sequence[float], normal_share: float = 1) -> dict[str, float]:
    r"""
    Compare scores with those of a calibration, by how many lie at or below its median.

    Of :math:`n` scores that are exchangeable with the :math:`m` of the calibration, the number at or below the
    :math:`j`-th smallest of these is beta-binomial, :math:`B \sim \mathrm{BetaBin}(n, j, m + 1 - j)` (the precedence
    test of Nelson, 1963). Abnormal images have larger scores, so they can but lower the number: where a share of the
    images may be abnormal, only the others count for the scores being too large.

    Args:
        scores: of the new images, finite, at least one.
        calibration: of normal images, finite, at least one.
        normal_share: least share of the new images that is normal, in (0, 1].

    Returns:
        ``below``, the number at or below the median, and ``p_higher`` and ``p_lower``, the probability of so few and of
        so many, 0..1.

    Example:
        >>> precedence_test([5.0, 6.0, 7.0], [1.0, 2.0, 3.0])  # 4 of 20 orders have none before the 2nd
        {'below': 0, 'p_higher': 0.2, 'p_lower': 1.0}
    """
    m, n = len(calibration), len(scores)
    j = (m + 1) // 2
    below = int((np.asarray(scores) <= np.sort(calibration)[j - 1]).sum())
    normal = math.ceil(normal_share * n)
    higher = betabinom(normal, j, m + 1 - j).cdf(below)
    lower = betabinom(n, j, m + 1 - j).sf(below - 1)
    return {"below": below, "p_higher": round(float(higher), 12), "p_lower": round(float(lower), 12)}


def score_shift(records: Sequence[Mapping[str, Any]], calibration: Mapping[str, Any] | None) -> Iterator[str]:
    """
    Yield a sentence where the images of a run are not like the normal images of the calibration.

    In an evaluation the images that are labelled normal are compared. Where no label is known, up to half of the images
    may be abnormal.

    Args:
        records: rows of the predictions: ``anomaly_score``, ``label`` and ``not_assessed``.
        calibration: see :py:func:`bundle.anomaly.read_calibration`; ``None`` says nothing.

    Example:
        >>> usual = {"scores": list(range(100)), "false_alarm_rate": 0.1}
        >>> rows = [{"anomaly_score": 200.0, "label": 0, "not_assessed": None}] * 20
        >>> print(next(score_shift(rows, usual))[:79])
        Scores are higher than the calibration's: 0 of 20 normal images lie at or below
    """
    if calibration is None:
        return
    assessed = [record for record in records if record["not_assessed"] is None and record["anomaly_score"] is not None]
    labelled = any(record["label"] is not None for record in assessed)
    scores = [float(r["anomaly_score"]) for r in assessed if not labelled or r["label"] == 0]
    if not scores:
        return
    found = precedence_test(scores, calibration["scores"], 1 if labelled else 0.5)
    images = f"{len(scores)} {'normal ' if labelled else ''}images"
    counted = (
        f"{found['below']} of {images} lie at or below the median of its {len(calibration['scores'])} normal images"
    )
    rate = f"the false-alarm rate of {calibration['false_alarm_rate']:g}"
    remedy = "scripts/recalibrate.py sets the threshold on normal images of this source."
    if found["p_higher"] < LEVEL:
        unless = "" if labelled else ", unless more than half of the images are abnormal"
        yield (
            f"Scores are higher than the calibration's: {counted}. These images differ from those of the training"
            f"{unless}, and {rate} does not hold: {remedy}"
        )
    elif found["p_lower"] < LEVEL:
        yield (
            f"Scores are lower than the calibration's: {counted}. The threshold is too high for these images, so more "
            f"of the abnormal ones are missed than {rate} would: {remedy}"
        )
