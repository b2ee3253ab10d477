# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""From mined attention maps to boxes, probabilities and heatmaps in the pixel grid of the file."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import TransformBackends, convert_to_tensor

from bundle.localization.erasure import erased_logits
from bundle.preprocessing.box_frames import found_in_source, seen_in_source
from bundle.results.verdicts import findings_of, operating_points_of, verdict_of
from bundle.rules import number_in

__all__ = ["AttentionResultd", "MapLogitsd", "StepMapsd"]


class AttentionResultd(MapTransform):
    """
    Add what the results need to an item with the output of :py:class:`bundle.localization.AttentionMiningInferer`.

    Only findings at or above their operating point get boxes, and without one there are none: a map is stretched to
    0..1 whatever the probability of its class, so its height says where, and nothing about whether. A box of nearly
    all that the network saw says no place and is left out; the limit stands above the largest box that was annotated in
    ChestX-ray14 (0.56 of the image, Pneumonia; Cardiomegaly reaches 0.30) and BUSI (0.73).

    Args:
        keys: the output of the inferer.
        classes: names of the ``C`` classes.
        calibration: what :py:func:`bundle.classification.read_classifier_calibration` returned; ``None`` for raw
            probabilities, no verdicts and no boxes.
        probability_threshold: operating point of every finding in place of those of the calibration, (0, 1]; ``None``
            for those of the calibration.
        normal_class: class that is no finding, such as "normal" or "No finding"; empty or ``None`` where there is none.
        max_box_fraction: part of the seen frame above which a box is none, (0, 1].
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
        normal_class: str | None = None,
        max_box_fraction: float = 0.9,
        image_key: str = "image",
    ) -> None:
        super().__init__(keys)
        self.findings = findings_of(classes, normal_class)
        self.classes, self.image_key = tuple(classes), image_key
        self.temperature = 1.0 if calibration is None else number_in("temperature", calibration["temperature"], 0.01)
        self.operating_points = operating_points_of(calibration, self.findings, probability_threshold)
        self.max_box_fraction = number_in("max_box_fraction", max_box_fraction, 0, 1, without_low=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Args:
            data: the output of the inferer, the image, and where it is so ``not_assessed``, why it gets no verdict.

        Returns:
            the item with ``probabilities``, ``finding_probability``, ``operating_points``, ``abnormal`` or
            ``not_assessed``, see :py:func:`bundle.results.verdicts.verdict_of`; ``not_assessed`` also where a map is
            not finite; ``boxes`` of the findings that are present in pixels of the file, the largest ``map_height``
            first (the mean height of the stretched map inside, 0..1); ``heatmap_class``, of those present, or else of
            all, the most probable finding; and ``heatmap`` ``(1 + T, H, W)``, 0..1: its final map and after it its map
            of each step, on the network's input and with the transforms of the image, so that ``Invertd`` brings them
            to the pixel grid of the file.
        """
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            out = {name: convert_to_tensor(value).cpu() for name, value in d[key].items()}
            if len(out["logits"]) != len(self.classes):
                raise ValueError(f"the network has {len(out['logits'])} classes, got {len(self.classes)} names.")
            scores = dict(
                zip(self.classes, (out["logits"].double() / self.temperature).sigmoid().tolist(), strict=True)
            )
            points = {} if d.get("not_assessed") else self.operating_points
            if not out["heatmap"].isfinite().all():  # a prior that is no number leaves the probabilities as they are
                d["not_assessed"], points = "the maps of all classes must be finite, some are not", {}
            stated, present = verdict_of(scores, points, self.findings)
            best = max(present or self.findings, key=lambda name: scores[name])
            d.update(stated, heatmap_class=best)
            boxes = [box for name in present for box in self._boxes(out, name, image)]
            d["boxes"] = sorted(boxes, key=lambda box: -box["map_height"])
            index = self.classes.index(best)
            maps = torch.cat([out["heatmap"][index][None], out["maps"][:, index]])
            heat = F.interpolate(maps[None], list(image.shape[-2:]), mode="bilinear", align_corners=False)[0]
            d["heatmap"] = MetaTensor(heat, meta=image.meta, applied_operations=image.applied_operations)
        return d

    def _boxes(self, out: Mapping[str, torch.Tensor], name: str, image: MetaTensor) -> list[dict[str, Any]]:
        index = self.classes.index(name)
        edges, heights = found_in_source(out["boxes"][index], out["map_heights"][index], image)
        left, upper, right, lower = seen_in_source(image).tolist()
        limit = self.max_box_fraction * (right - left) * (lower - upper)
        return [
            {"label": name, "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "map_height": height}
            for (x0, y0, x1, y1), height in zip(edges.tolist(), heights.tolist(), strict=True)
            if (x1 - x0) * (y1 - y0) <= limit
        ]


class StepMapsd(MapTransform):
    """
    Split the inverted maps of :py:class:`AttentionResultd`: the final one stays, those of the steps become extra maps.

    Args:
        keys: the heatmaps, shape ``(1 + T, H, W)``.
    """

    def __init__(self, keys: KeysCollection = "heatmap") -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with the final map ``(1, H, W)`` and ``extra_maps``, ``(H, W)`` arrays by the step's name."""
        d = dict(data)
        for key in self.key_iterator(d):
            maps = convert_to_tensor(d[key]).clamp(0, 1)
            d[key] = maps[:1]
            d["extra_maps"] = {f"step_{t}": heat.numpy() for t, heat in enumerate(maps[1:], start=1)}
        return d


class MapLogitsd(MapTransform):
    """
    Reduce class activation maps to logits, their spatial means, for metrics of classification.

    Args:
        keys: maps of one item, shape ``(C, h, w)``.
    """

    def __init__(self, keys: KeysCollection = "pred") -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with logits of shape ``(C,)``."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = erased_logits(convert_to_tensor(d[key])[None])[0]
        return d
