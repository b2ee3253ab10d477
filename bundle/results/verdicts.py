# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What is said of findings: which are present, by the operating point of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bundle.rules import class_names, number_in

__all__ = ["findings_of", "heatmap_title", "operating_points_of", "verdict_of"]


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


def operating_points_of(calibration: Mapping[str, Any] | None, findings: Sequence[str]) -> dict[str, float]:
    """
    Return the probability from which each finding is called present; findings that have none are left out.

    Args:
        calibration: what :py:func:`bundle.classification.read_classifier_calibration` returned, or ``None``.
        findings: names.

    Raises:
        ValueError: When an operating point is missing, or neither ``None`` nor in [0, 1].
    """
    if calibration is None:
        return {}
    thresholds = calibration["thresholds"]
    if missing := [name for name in findings if name not in thresholds]:
        raise ValueError(f"the calibration must have an operating point of '{missing[0]}' or null, it has neither.")
    return {
        name: number_in(f"operating point of '{name}'", thresholds[name], 0, 1)
        for name in findings
        if thresholds[name] is not None
    }


def verdict_of(
    label_scores: Mapping[str, float], operating_points: Mapping[str, float], findings: Sequence[str]
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """
    Return what an item's results say of its findings, from finite probabilities alone.

    Args:
        label_scores: probability by class.
        operating_points: by finding; a finding without one is neither present nor absent.
        findings: names.

    Returns:
        three things. What goes into the item: ``operating_points``, and ``abnormal``, true where any finding reaches
        its point, false where all have one and none reaches it; where a probability is not finite, empty
        ``operating_points`` and ``not_assessed`` with the reason. The findings that reach their point. The same in
        words for the tables, empty without any operating point.

    Example:
        >>> verdict_of({"Mass": 0.9, "Hernia": 0.9}, {"Mass": 0.95}, ["Mass", "Hernia"])
        ({'operating_points': {'Mass': 0.95}}, [], {'at or above threshold': 'none', 'no operating point': 'Hernia'})
    """
    unfit = [(name, value) for name, value in label_scores.items() if not math.isfinite(value)]
    if unfit:
        reason = f"the probability of '{unfit[0][0]}' must be finite, got {unfit[0][1]}"
        return {"not_assessed": reason, "operating_points": {}}, [], {}
    stated: dict[str, Any] = {"operating_points": dict(operating_points)}
    if not operating_points:
        return stated, [], {}
    present = [name for name in operating_points if label_scores[name] >= operating_points[name]]
    words = {"at or above threshold": ", ".join(present) or "none"}
    missing = [name for name in findings if name not in operating_points]
    if missing:
        words["no operating point"] = ", ".join(missing)
    if present or not missing:
        stated["abnormal"] = bool(present)
    return stated, present, words


def heatmap_title(name: str, scores: Mapping[str, float], operating_points: Mapping[str, float]) -> str:
    """
    Return the class that a heatmap shows, and that the class is not called present where it is not.

    Args:
        name: of the class.
        scores: probability by class.
        operating_points: by finding.

    Example:
        >>> heatmap_title("Mass", {"Mass": 0.1}, {"Mass": 0.4})
        'Mass, below its operating point'
    """
    if name not in operating_points:
        return f"{name}, without an operating point"
    return name if scores[name] >= operating_points[name] else f"{name}, below its operating point"
