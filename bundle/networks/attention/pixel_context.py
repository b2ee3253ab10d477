# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Pyramid pixel context recalibration: every pixel gated by its own channel averages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["PyramidPixelContextRecalibration"]


class PyramidPixelContextRecalibration(nn.Module):
    """
    Gate every pixel by a learned combination of averages over groups of its channels.

    Zhang et al., "PPCR: Learning Pyramid Pixel Context Recalibration Module for Medical Image Classification"
    (version 1 of https://arxiv.org/abs/2303.01917): cross-channel pyramid pooling (the channels in 1, 2 and 4 equal
    groups, each averaged), pixel normalization (over those 7 values, per pixel), pixel context integration (a learned
    weight per position and value), sigmoid, product. Only the abstract was at hand; the widths follow our reading
    notes.

    The weights belong to positions of one feature-map size. Another size gets them by bilinear interpolation.
    They start at 0, so the gate starts at 0.5 everywhere.

    Args:
        channels: number of channels ``C``.
        size: height and width of the feature map that the weights are stored for.
        groups: sizes of the pyramid; each must divide ``channels``.

    Raises:
        ValueError: When ``channels`` is not divisible by a group count.
    """

    def __init__(self, channels: int, size: tuple[int, int], groups: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__()
        for g in groups:
            if channels % g:
                raise ValueError(f"channels must be divisible by {g} groups, got {channels}.")
        self.groups = tuple(groups)
        self.weight = nn.Parameter(torch.zeros(1, sum(groups), size[0], size[1]))

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: features, shape ``(B, C, H, W)``.

        Returns:
            gates in (0, 1), shape ``(B, 1, H, W)``.
        """
        b, _, h, w = x.shape
        context = torch.cat([x.reshape(b, g, -1, h, w).mean(dim=2) for g in self.groups], dim=1)  # (B, G, H, W)
        centered = context - context.mean(dim=1, keepdim=True)
        context = centered * torch.rsqrt(centered.square().mean(dim=1, keepdim=True) + 1e-5)
        weight: torch.Tensor = self.weight
        if weight.shape[2] != h or weight.shape[3] != w:
            weight = F.interpolate(weight, size=(h, w), mode="bilinear", align_corners=False)
        return torch.sigmoid((context * weight).sum(dim=1, keepdim=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: features, shape ``(B, C, H, W)``.

        Returns:
            recalibrated features of the same shape.
        """
        return x * self.attention(x)
