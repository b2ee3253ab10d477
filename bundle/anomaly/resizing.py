# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps on other grids."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["resized_map"]


def resized_map(feature_map: torch.Tensor, size: list[int]) -> torch.Tensor:
    """
    Return a map on another grid: averaged where it gets smaller, bilinear where it gets larger.

    Both commute with a 1x1 convolution, so maps may be projected before or after.

    Args:
        feature_map: shape ``(B, C, H, W)``.
        size: rows and columns of the result.

    Returns:
        shape ``(B, C, size[0], size[1])``.
    """
    h, w = feature_map.shape[-2:]
    if h == size[0] and w == size[1]:
        return feature_map
    if h >= size[0] and w >= size[1]:
        return F.adaptive_avg_pool2d(feature_map, (size[0], size[1]))
    return F.interpolate(feature_map, size, mode="bilinear", align_corners=False)
