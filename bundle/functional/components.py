# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The connected component of each map's maximum, for a whole batch at once and on its device."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["component_of_maximum"]

_STEPS_BETWEEN_CHECKS = 8  # asking whether anything changed waits for the device, growing once too often does not


def component_of_maximum(maps: torch.Tensor, threshold: float | torch.Tensor = 0.5) -> torch.Tensor:
    """
    Return, for every map, the 8-connected component of ``map >= threshold`` that holds the map's maximum.

    Geodesic dilation: the maximum's position grows by one pixel in all directions inside the binarized map until
    nothing changes, for all maps together. Of several equal maxima the first in row order counts. A map whose maximum
    is below the threshold, or not above 0 (constant and fully erased maps after
    :py:func:`bundle.functional.heatmaps.normalized_maps`), has an empty component.

    Args:
        maps: values 0..1, shape ``(..., H, W)``.
        threshold: height of the binarization, a number or a tensor that broadcasts to ``maps``.

    Returns:
        boolean masks, same shape.

    Example:
        >>> component_of_maximum(torch.tensor([[0.6, 0.0, 0.6, 1.0]])).int().tolist()
        [[0, 0, 1, 1]]
    """
    height, width = maps.shape[-2:]
    allowed = ((maps >= threshold) & (maps > 0)).view(-1, 1, height, width).to(torch.float32)
    flat = maps.reshape(-1, height * width)
    grown = torch.zeros_like(flat, dtype=torch.float32)
    grown.scatter_(1, flat.argmax(dim=1, keepdim=True), 1.0)
    grown = grown.view(-1, 1, height, width) * allowed
    while True:
        before = grown
        for _ in range(_STEPS_BETWEEN_CHECKS):
            grown = F.max_pool2d(grown, 3, stride=1, padding=1) * allowed
        if torch.equal(grown, before):
            return grown.view(maps.shape) > 0
