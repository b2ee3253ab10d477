# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From a classifier's logits to named probabilities and verdicts."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import CommonKeys, convert_to_tensor

from bundle.rules import class_names, number_in, true_or_false

__all__ = ["ClassScoresd", "findings_of", "heatmap_title", "operating_points_of", "verdict_of"]


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


class ClassScoresd(Transform):
    """
    Name the probabilities of one item's logits, and say which reach their operating point.

    Args:
        classes: names in the order of the logits.
        exclusive: softmax over the classes, where exactly one holds; otherwise a sigmoid for each.
        calibration: what :py:func:`bundle.classification.read_classifier_calibration` returned; ``None`` for raw
            probabilities and no verdicts.
        normal_class: class that is no finding, such as "normal" or "No finding"; empty or ``None`` where
            there is none.

    Raises:
        ValueError: When ``exclusive`` is not a boolean, ``classes`` are no names, ``normal_class`` is none of them or
            the only one, or the calibration has values that mean nothing.
    """

    def __init__(
        self,
        classes: Sequence[str],
        exclusive: bool = True,
        calibration: Mapping[str, Any] | None = None,
        normal_class: str | None = None,
    ) -> None:
        self.findings = findings_of(classes, normal_class)
        self.classes, self.exclusive = list(classes), true_or_false("exclusive", exclusive)
        self.temperature = 1.0 if calibration is None else number_in("temperature", calibration["temperature"], 0.01)
        self.operating_points = operating_points_of(calibration, self.findings)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: ``pred``, logits of shape ``(K,)``; where known ``label``, zeros and ones of shape ``(K,)``,
                ``attention``, a map of shape ``(1, H, W)`` in the pixels of the file, ``heatmap_class``, the class that
                the heatmap shows, and ``not_assessed``, why the image gets no verdict.

        Returns:
            the item with ``label_scores``, a dictionary of probabilities 0..1, ``anomaly_score``, that of the most
            probable finding, and ``operating_points`` of the findings that have one; with a calibration also
            ``abnormal``, whether any finding reaches its operating point (not, where none does but one has no point),
            and ``extra`` with the findings that do and what the heatmap shows. An item with a probability that is not
            finite gets ``not_assessed`` and no verdict. ``label`` becomes 1 where any finding is true and 0 else, the
            true findings go to ``extra``. ``attention`` goes to ``extra_maps``.
        """
        item = dict(data)
        logits = convert_to_tensor(item[CommonKeys.PRED]).double() / self.temperature
        probabilities = (logits.softmax(dim=0) if self.exclusive else logits.sigmoid()).tolist()
        scores = dict(zip(self.classes, probabilities, strict=True))
        item["label_scores"] = scores
        item["extra"] = dict(item.get("extra", {}))
        points = {} if item.get("not_assessed") else self.operating_points
        stated, _, words = verdict_of(scores, points, self.findings)
        item.update(stated)
        item["extra"].update(words)
        unfit = "not_assessed" in stated
        item["anomaly_score"] = math.nan if unfit else max(scores[c] for c in self.findings)
        if shown := item.pop("heatmap_class", None):
            item["extra"]["heatmap shows"] = heatmap_title(shown, scores, stated["operating_points"])
        if item.get(CommonKeys.LABEL) is not None:
            target = dict(zip(self.classes, torch.as_tensor(item[CommonKeys.LABEL]).tolist(), strict=True))
            true = [c for c in self.findings if target[c]]
            item[CommonKeys.LABEL] = int(bool(true))
            item["extra"]["label"] = ", ".join(true) or "no finding"
        if item.get("attention") is not None:
            item["extra_maps"] = {"attention": torch.as_tensor(item.pop("attention"))[0].float().cpu().numpy()}
        return item


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
