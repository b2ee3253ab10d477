# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Attention mining without training: maps, probabilities and boxes from one pass through the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor

from bundle.localization.anchors import box_from_anchors
from bundle.localization.boxes import boxes_from_heatmaps, falling_fractions
from bundle.localization.erasure import erased_logits
from bundle.localization.heatmaps import mined_heatmaps, prior_on_grid
from bundle.rules import number_in, true_or_false, whole_number

__all__ = ["AttentionMiningInferer"]


class AttentionMiningInferer(Inferer):
    """
    Run a network of class activation maps once and mine its maps ``steps`` times.

    Eq. 7 and 8 of Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958); the weights are frozen, so every step
    erases the same maps and the network runs once.

    Args:
        steps: ``T``; 1 gives the plain class activation map.
        threshold: height at which a stretched map is binarized, in (0, 1].
        box_thresholds: ``K`` fractions of a map's maximum, descending, one box each.
        upsample: factor by which the final map is enlarged before boxes are cut from it.
        flip: average the maps with those of the image flipped left to right (test-time augmentation, a second pass);
            the logits stay those of the image as it is, which are what a calibration was fitted to.
        prior: gives an anomaly map ``(B, 1, h', w')`` of the images, any values not below 0, such as an ADFA network;
            divided by its maximum and averaged onto the grid of the maps, it weights where is mined.
        anchors: by finding, typical boxes, see :py:func:`bundle.localization.fit_anchors`; its one box is that which
            its map is hottest in. A finding without any has the boxes that are cut from its map.
        classes: names of the maps, where there are anchors.

    Raises:
        ValueError: When a setting is out of its range.
    """

    def __init__(
        self,
        steps: int = 3,
        threshold: float = 0.5,
        box_thresholds: Sequence[float] = (0.8, 0.6, 0.4),
        upsample: int = 4,
        flip: bool = False,
        prior: Callable[[torch.Tensor], torch.Tensor] | None = None,
        anchors: Mapping[str, Sequence[Sequence[float]]] | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.steps = whole_number("steps", steps)
        self.threshold = number_in("threshold", threshold, 0, 1, without_low=True)
        self.box_thresholds = falling_fractions("box_thresholds", box_thresholds)
        self.upsample, self.flip = whole_number("upsample", upsample), true_or_false("flip", flip)
        self.prior = prior
        unknown = sorted(set(anchors or {}) - set(classes))
        if unknown:
            raise ValueError(f"anchors must be of the classes {list(classes)}, got {unknown}.")
        self.anchors = {tuple(classes).index(name): boxes for name, boxes in (anchors or {}).items()}

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            inputs: images, shape ``(B, C_in, H, W)``.
            network: gives class activation maps ``(B, C, h, w)`` whose mean is the logit.
            args: passed on to the network.
            kwargs: passed on to the network.

        Returns:
            ``logits`` ``(B, C)``; ``maps`` ``(B, T, C, h, w)``, the stretched map of each step, 0..1;
            ``heatmap`` ``(B, C, h, w)``, the final map, 0..1; ``boxes`` ``(B, C, K, 4)`` as left, upper, right, lower
            edge in pixels of ``inputs``, and their ``map_heights`` ``(B, C, K)``, the mean of the final map inside,
            0..1, falling, 0 for no further box. No probability is in them.
        """
        raw = _at_least_single(network(inputs, *args, **kwargs))
        logits = erased_logits(raw)
        if self.flip:
            raw = (raw + _at_least_single(network(inputs.flip(-1), *args, **kwargs)).flip(-1)) / 2
        prior = None if self.prior is None else prior_on_grid(_at_least_single(self.prior(inputs)), raw.shape[-2:])
        maps, _, heatmap = mined_heatmaps(raw, self.steps, self.threshold, prior)
        size = (inputs.shape[-2], inputs.shape[-1])
        boxes, heights = boxes_from_heatmaps(heatmap, size, self.box_thresholds, self.upsample)
        for c, anchors in self.anchors.items():
            chosen = box_from_anchors(heatmap[:, c], anchors, self.upsample)
            boxes[:, c], heights[:, c] = 0, 0
            boxes[:, c, 0] = chosen[:, :4] * chosen.new_tensor([size[1], size[0]] * 2)
            heights[:, c, 0] = chosen[:, 4]
        return {
            "logits": logits,
            "maps": maps.transpose(0, 1),
            "heatmap": heatmap,
            "boxes": boxes,
            "map_heights": heights,
        }


def _at_least_single(maps: Any) -> torch.Tensor:
    """Return maps in which boxes and ranks do not depend on the half precision of the network."""
    plain = convert_to_tensor(maps)
    return plain.to(torch.promote_types(plain.dtype, torch.float32))
