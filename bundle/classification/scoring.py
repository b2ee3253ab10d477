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

from bundle.results.verdicts import findings_of, heatmap_title, operating_points_of, verdict_of
from bundle.rules import number_in, true_or_false

__all__ = [
    "ClassScoresd",
]


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
