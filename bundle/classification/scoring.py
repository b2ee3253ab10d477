# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From a classifier's logits to named probabilities and verdicts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Transform
from monai.utils import CommonKeys, convert_to_tensor

from bundle.results.verdicts import findings_of, operating_points_of, verdict_of
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
                ``attention``, a map of shape ``(1, H, W)`` in the pixels of the file, and ``not_assessed``, why the
                image gets no verdict.

        Returns:
            the item with ``probabilities``, ``finding_probability``, ``operating_points``, ``abnormal`` or
            ``not_assessed``, see :py:func:`bundle.results.verdicts.verdict_of`. ``label`` becomes 1 where any finding
            is true and 0 else, the true ones are ``true_findings``. ``attention`` goes to ``extra_maps``.
        """
        item = dict(data)
        logits = convert_to_tensor(item[CommonKeys.PRED]).double() / self.temperature
        probabilities = (logits.softmax(dim=0) if self.exclusive else logits.sigmoid()).tolist()
        points = {} if item.get("not_assessed") else self.operating_points
        item.update(verdict_of(dict(zip(self.classes, probabilities, strict=True)), points, self.findings)[0])
        if item.get(CommonKeys.LABEL) is not None:
            target = dict(zip(self.classes, torch.as_tensor(item[CommonKeys.LABEL]).tolist(), strict=True))
            item["true_findings"] = [name for name in self.findings if target[name]]
            item[CommonKeys.LABEL] = int(bool(item["true_findings"]))
        if item.get("attention") is not None:
            item["extra_maps"] = {"attention": torch.as_tensor(item.pop("attention"))[0].float().cpu().numpy()}
        return item
