# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From a classifier's logits to named probabilities and verdicts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import CommonKeys

__all__ = ["ClassScoresd"]


class ClassScoresd(Transform):
    """
    Name the probabilities of one item's logits, and say which reach their threshold.

    Args:
        classes: names in the order of the logits.
        exclusive: softmax over the classes, where exactly one holds; otherwise a sigmoid for each.
        calibration: what :py:func:`bundle.data.read_classifier_calibration` returned; ``None`` for raw probabilities
            and no verdicts.
        normal_class: class that is no finding, such as "normal" or "No finding"; empty or ``None`` where
            there is none.

    Raises:
        ValueError: When ``exclusive`` is not a boolean, or ``normal_class`` is none of the classes or the only one.
    """

    def __init__(
        self,
        classes: Sequence[str],
        exclusive: bool = True,
        calibration: Mapping[str, Any] | None = None,
        normal_class: str | None = None,
    ) -> None:
        if not isinstance(exclusive, bool):  # a command line that says false hands over a word, which is true
            raise ValueError(f"exclusive must be True or False, got '{exclusive}'.")
        self.classes, self.exclusive = list(classes), exclusive
        self.findings = [c for c in self.classes if c != normal_class]
        if not self.findings or (normal_class and normal_class not in self.classes):
            raise ValueError(f"normal_class must be one of several classes {self.classes}, got '{normal_class}'.")
        self.temperature = calibration["temperature"] if calibration else 1.0
        self.thresholds = calibration["thresholds"] if calibration else None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: ``pred``, logits of shape ``(K,)``; where known ``label``, zeros and ones of shape ``(K,)``, and
                ``attention``, a map of shape ``(1, H, W)`` in the pixels of the file.

        Returns:
            the item with ``label_scores``, a dictionary of probabilities 0..1, and ``anomaly_score``, that of the most
            probable finding; with a calibration also ``abnormal``,
            whether any finding reaches its threshold, and ``extra`` with the findings that do. ``label`` becomes
            1 where any finding is true and 0 else, the true findings go to ``extra``. ``attention`` goes to
            ``extra_maps``.
        """
        item = dict(data)
        logits = torch.as_tensor(item[CommonKeys.PRED]).double() / self.temperature
        probabilities = (logits.softmax(dim=0) if self.exclusive else logits.sigmoid()).tolist()
        item["label_scores"] = dict(zip(self.classes, probabilities, strict=True))
        item["anomaly_score"] = max(item["label_scores"][c] for c in self.findings)
        item["extra"] = dict(item.get("extra", {}))
        if self.thresholds is not None:
            reached = [c for c in self.findings if item["label_scores"][c] >= self.thresholds[c]]
            item["abnormal"] = bool(reached)
            item["extra"]["at or above threshold"] = ", ".join(reached) or "none"
        if item.get(CommonKeys.LABEL) is not None:
            target = dict(zip(self.classes, torch.as_tensor(item[CommonKeys.LABEL]).tolist(), strict=True))
            true = [c for c in self.findings if target[c]]
            item[CommonKeys.LABEL] = int(bool(true))
            item["extra"]["label"] = ", ".join(true) or "no finding"
        if item.get("attention") is not None:
            item["extra_maps"] = {"attention": torch.as_tensor(item.pop("attention"))[0].float().cpu().numpy()}
        return item
