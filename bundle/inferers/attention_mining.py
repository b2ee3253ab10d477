# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Attention mining without training: maps, probabilities and boxes from one pass through the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor

from bundle.functional.boxes import boxes_from_heatmaps
from bundle.functional.erasure import erased_logits
from bundle.functional.heatmaps import mined_heatmaps, prior_on_grid

__all__ = ["AttentionMiningInferer"]


class AttentionMiningInferer(Inferer):
    """
    Run a network of class activation maps once and mine its maps ``steps`` times.

    Eq. 7 and 8 of Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958); the weights stand still, so every step
    erases the same maps and the network runs once.

    Args:
        steps: ``T``; 1 gives the plain class activation map.
        threshold: height at which a stretched map is binarized, 0..1.
        box_thresholds: ``K`` fractions of a map's maximum, descending, one box each.
        upsample: factor by which the final map is enlarged before boxes are cut from it.
        flip: average the maps with those of the image flipped left to right (test-time augmentation, a second pass).
        prior: gives an anomaly map ``(B, 1, h', w')`` of the images, any values not below 0, such as an ADFA network;
            divided by its maximum and averaged onto the grid of the maps, it weights where is mined.

    Raises:
        ValueError: When ``steps`` is below 1.
    """

    def __init__(
        self,
        steps: int = 3,
        threshold: float = 0.5,
        box_thresholds: Sequence[float] = (0.8, 0.6, 0.4),
        upsample: int = 4,
        flip: bool = False,
        prior: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}.")
        self.steps, self.threshold, self.box_thresholds = steps, threshold, tuple(box_thresholds)
        self.upsample, self.flip, self.prior = upsample, flip, prior

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
            ``probability`` ``(B, C)``, 0..1; ``maps`` ``(B, T, C, h, w)``, the stretched map of each step, 0..1;
            ``heatmap`` ``(B, C, h, w)``, the final map, 0..1; ``boxes`` ``(B, C, K, 4)`` as left, upper, right, lower
            edge in pixels of ``inputs``, and their ``scores`` ``(B, C, K)``, best first, 0 for no further box.
        """
        raw = _at_least_single(network(inputs, *args, **kwargs))
        if self.flip:
            raw = (raw + _at_least_single(network(inputs.flip(-1), *args, **kwargs)).flip(-1)) / 2
        prior = None if self.prior is None else prior_on_grid(_at_least_single(self.prior(inputs)), raw.shape[-2:])
        maps, _, heatmap = mined_heatmaps(raw, self.steps, self.threshold, prior)
        size = (inputs.shape[-2], inputs.shape[-1])
        boxes, scores = boxes_from_heatmaps(heatmap, size, self.box_thresholds, self.upsample)
        return {
            "probability": erased_logits(raw).sigmoid(),
            "maps": maps.transpose(0, 1),
            "heatmap": heatmap,
            "boxes": boxes,
            "scores": scores,
        }


def _at_least_single(maps: Any) -> torch.Tensor:
    """Return maps in which boxes and ranks do not hang on the half precision of the network."""
    plain = convert_to_tensor(maps)
    return plain.to(torch.promote_types(plain.dtype, torch.float32))
