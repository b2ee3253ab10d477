# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What is said of findings: which are present, by the operating point of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bundle.rules import class_names, number_in

__all__ = ["findings_of", "operating_points_of", "verdict_of"]


def findings_of(classes: Sequence[str], normal_class: str | None) -> list[str]:
    """
    Return the classes that are findings: all but the one that is none, such as "normal" or "No finding".

    Args:
        classes: names.
        normal_class: one of them; empty or ``None`` where every class is a finding.

    Raises:
        ValueError: When ``classes`` are no names, or ``normal_class`` is none of them or the only one.
    """
    names = class_names(classes)
    findings = [name for name in names if name != normal_class]
    if not findings or (normal_class and normal_class not in names):
        raise ValueError(f"normal_class must be one of several classes {list(names)}, got '{normal_class}'.")
    return findings


def operating_points_of(
    calibration: Mapping[str, Any] | None, findings: Sequence[str], everywhere: float | None = None
) -> dict[str, float]:
    """
    Return the probability from which each finding is called present; findings that have none are left out.

    Args:
        calibration: what :py:func:`bundle.classification.read_classifier_calibration` returned, or ``None``.
        findings: names.
        everywhere: operating point of every finding in place of those of the calibration, (0, 1].

    Raises:
        ValueError: When an operating point is missing, or neither ``None`` nor in [0, 1].
    """
    thresholds = dict.fromkeys(findings) if calibration is None else calibration["thresholds"]
    if missing := [name for name in findings if name not in thresholds]:
        raise ValueError(f"the calibration must have an operating point of '{missing[0]}' or null, it has neither.")
    known = {
        name: number_in(f"operating point of '{name}'", thresholds[name], 0, 1)
        for name in findings
        if thresholds[name] is not None
    }
    if everywhere is None:
        return known
    return dict.fromkeys(findings, number_in("probability_threshold", everywhere, 0, 1, without_low=True))


def verdict_of(
    probabilities: Mapping[str, float], operating_points: Mapping[str, float], findings: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """
    Return what an item's results say of its findings, from finite probabilities alone.

    Args:
        probabilities: by class.
        operating_points: by finding; a finding without one is neither present nor absent.
        findings: names.

    Returns:
        two things. What goes into the item: ``probabilities``; ``finding_probability``, that of the most probable
        finding; ``operating_points``, ``None`` for a finding without one, empty where none has one; and ``abnormal``,
        true where any finding reaches its point, false where all have one and none reaches it. Where a probability is
        not finite, in place of the last three empty ``operating_points`` and ``not_assessed`` with the reason. And the
        findings that reach their point.

    Example:
        >>> verdict_of({"Mass": 0.9, "Hernia": 0.8}, {"Mass": 0.95}, ["Mass", "Hernia"])[0]["operating_points"]
        {'Mass': 0.95, 'Hernia': None}
    """
    stated: dict[str, Any] = {"probabilities": dict(probabilities), "operating_points": {}}
    unfit = [(name, value) for name, value in probabilities.items() if not math.isfinite(value)]
    if unfit:
        stated["not_assessed"] = f"the probability of '{unfit[0][0]}' must be finite, got {unfit[0][1]}"
        return stated, []
    stated["finding_probability"] = max(probabilities[name] for name in findings)
    if not operating_points:
        return stated, []
    stated["operating_points"] = {name: operating_points.get(name) for name in findings}
    present = [name for name in operating_points if probabilities[name] >= operating_points[name]]
    if present or len(operating_points) == len(findings):
        stated["abnormal"] = bool(present)
    return stated, present
