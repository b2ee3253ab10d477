# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From the detector's boxes to probabilities, verdicts and boxes in pixels of the file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import CommonKeys, TransformBackends, convert_to_tensor

from bundle.preprocessing.box_frames import found_in_source
from bundle.results.verdicts import findings_of, operating_points_of, verdict_of
from bundle.rules import number_in

__all__ = ["DetectionResultd"]


class DetectionResultd(MapTransform):
    """
    Add what the results need to an item with the output of :py:class:`bundle.detection.PyramidInferer`.

    The probability of a finding is that of its best box, so what is called present has a box; every box of it at or
    above the operating point is shown. Without operating points there are none.

    Args:
        keys: the output of the inferer.
        classes: names of the ``C`` findings.
        calibration: what :py:func:`bundle.classification.read_classifier_calibration` returned; ``None`` for raw
            probabilities, no verdicts and no boxes.
        probability_threshold: operating point of every finding in place of those of the calibration, (0, 1]; ``None``
            for those of the calibration.
        image_key: the network's input.

    Raises:
        ValueError: When a setting is out of its range, or the network has another number of classes.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection = "pred",
        classes: Sequence[str] = (),
        calibration: Mapping[str, Any] | None = None,
        probability_threshold: float | None = None,
        image_key: str = "image",
    ) -> None:
        super().__init__(keys)
        self.classes, self.image_key = tuple(findings_of(classes, None)), image_key
        self.temperature = 1.0 if calibration is None else number_in("temperature", calibration["temperature"], 0.01)
        self.operating_points = operating_points_of(calibration, self.classes, probability_threshold)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: the output of the inferer, the image, where known ``label``, zeros and ones of shape ``(C,)``, and
                where it is so ``not_assessed``, why it gets no verdict.

        Returns:
            the item with ``probabilities``, ``finding_probability``, ``operating_points``, ``abnormal`` or
            ``not_assessed``, see :py:func:`bundle.results.verdicts.verdict_of`, and ``boxes`` of the findings that are
            present in pixels of the file, the largest ``score`` first, their calibrated probability. ``label`` becomes
            1 where any finding is true and 0 else, the true ones are ``true_findings``.
        """
        d = dict(data)
        for key in self.key_iterator(d):
            out = {name: convert_to_tensor(value).cpu().double() for name, value in d[key].items()}
            if len(out["logits"]) != len(self.classes):
                raise ValueError(f"the network has {len(out['logits'])} classes, got {len(self.classes)} names.")
            scores = dict(zip(self.classes, self._probabilities(out["logits"]).tolist(), strict=True))
            points = {} if d.get("not_assessed") else self.operating_points
            stated, present = verdict_of(scores, points, self.classes)
            d.update(stated)
            image = d[self.image_key]
            boxes = [box for name in present for box in self._boxes(out, name, image, points[name])]
            d["boxes"] = sorted(boxes, key=lambda box: -box["score"])
            if d.get(CommonKeys.LABEL) is not None:
                target = torch.as_tensor(d[CommonKeys.LABEL]).tolist()
                d["true_findings"] = [name for name, there in zip(self.classes, target, strict=True) if there]
                d[CommonKeys.LABEL] = int(bool(d["true_findings"]))
        return d

    def _probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return (logits / self.temperature).sigmoid()

    def _boxes(
        self, out: Mapping[str, torch.Tensor], name: str, image: MetaTensor, point: float
    ) -> list[dict[str, Any]]:
        index = self.classes.index(name)
        scores = self._probabilities(out["box_logits"][index])
        edges, kept = found_in_source(out["boxes"][index], scores.where(scores >= point, 0.0), image)
        return [
            {"label": name, "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "score": score}
            for (x0, y0, x1, y1), score in zip(edges.tolist(), kept.tolist(), strict=True)
        ]
