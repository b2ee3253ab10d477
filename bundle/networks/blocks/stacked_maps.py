# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Bring feature maps of several strides to one grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["resized_map", "stacked_maps"]


def resized_map(feature_map: torch.Tensor, size: list[int]) -> torch.Tensor:
    """
    Return a map on another grid: averaged where it gets smaller, bilinear where it gets larger.

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


def stacked_maps(maps: list[torch.Tensor], size: list[int], pool_size: int = 3) -> torch.Tensor:
    """
    Return the patch features of several maps: each averaged over its neighbors, resized, and concatenated.

    Args:
        maps: shapes ``(B, C_i, H_i, W_i)``.
        size: rows and columns of the result.
        pool_size: odd side of the average over neighbors before resizing, borders not counted; 1 leaves it out.

    Returns:
        shape ``(B, sum C_i, size[0], size[1])``.
    """
    pooled = [F.avg_pool2d(m, pool_size, 1, pool_size // 2, count_include_pad=False) for m in maps]
    return torch.cat([resized_map(m, size) for m in pooled], dim=1)
