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

from bundle.data.box_frames import boxes_in_source
from bundle.functional.erasure import erased_logits

__all__ = ["AttentionResultd", "MapLogitsd", "StepMapsd"]


class AttentionResultd(MapTransform):
    """
    Add what the results need to an item with the output of :py:class:`bundle.inferers.AttentionMiningInferer`.

    ``label_scores`` is the probability of each class; ``boxes`` the boxes, in pixels of the file, of the classes at or
    above the threshold, best first, and of the most probable class where there is none such; ``heatmap`` the final map
    of the most probable class and after it its map of each step, on the network's input and with the transforms of the
    image, so that ``Invertd`` brings them to the pixel grid of the file.

    Args:
        keys: the output of the inferer.
        classes: names of the ``C`` classes.
        threshold: probability, 0..1.
        image_key: the network's input.

    Raises:
        ValueError: When the network has another number of classes.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection = "pred",
        classes: Sequence[str] = (),
        threshold: float = 0.5,
        image_key: str = "image",
    ) -> None:
        super().__init__(keys)
        self.classes, self.threshold, self.image_key = tuple(classes), threshold, image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with ``label_scores``, ``boxes`` and ``heatmap`` ``(1 + T, H, W)``, 0..1."""
        d = dict(data)
        image = d[self.image_key]
        for key in self.key_iterator(d):
            out = {name: convert_to_tensor(value).cpu() for name, value in d[key].items()}
            probability = out["probability"]
            if len(probability) != len(self.classes):
                raise ValueError(f"the network has {len(probability)} classes, got {len(self.classes)} names.")
            best = int(probability.argmax())
            d["label_scores"] = dict(zip(self.classes, probability.tolist(), strict=True))
            chosen = [c for c in range(len(self.classes)) if c == best or probability[c] >= self.threshold]
            boxes = [box for c in chosen for box in self._boxes(out["boxes"][c], out["scores"][c], c, image)]
            d["boxes"] = sorted(boxes, key=lambda box: -box["map_height"])
            maps = torch.cat([out["heatmap"][best][None], out["maps"][:, best]])
            heat = F.interpolate(maps[None], list(image.shape[-2:]), mode="bilinear", align_corners=False)[0]
            d["heatmap"] = MetaTensor(heat, meta=image.meta, applied_operations=image.applied_operations)
        return d

    def _boxes(self, boxes: torch.Tensor, scores: torch.Tensor, c: int, image: MetaTensor) -> list[dict[str, Any]]:
        found = scores > 0
        edges = boxes_in_source(boxes[found], image)
        return [
            {"label": self.classes[c], "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "map_height": score}
            for (x0, y0, x1, y1), score in zip(edges.tolist(), scores[found].tolist(), strict=True)
            if x1 > x0 and y1 > y0
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
            d["extra_maps"] = {f"step {t}": heat.numpy() for t, heat in enumerate(maps[1:], start=1)}
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
