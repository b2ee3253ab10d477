# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Bring feature maps of several strides to one grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bundle.anomaly.resizing import resized_map

__all__ = ["stacked_maps"]


def stacked_maps(maps: list[torch.Tensor], size: list[int], pool_size: int = 3) -> torch.Tensor:
    """
    Return the patch features of several maps: each averaged over its neighbors, resized, and concatenated.

    Args:
        maps: shapes ``(B, C_i, H_i, W_i)``.
        size: rows and columns of the result.
        pool_size: odd side of the average over neighbors before resizing; 1 leaves it out.

    Returns:
        shape ``(B, sum C_i, size[0], size[1])``.
    """
    pooled = [F.avg_pool2d(m, pool_size, 1, pool_size // 2) for m in maps]
    return torch.cat([resized_map(m, size) for m in pooled], dim=1)
