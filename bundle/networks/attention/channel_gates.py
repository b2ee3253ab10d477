# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Gates that small convolutions and pooling compute: ECA, CBAM and scSE. Squeeze-and-excitation itself is MONAI's."""

from __future__ import annotations

import math

import torch
from monai.networks.blocks import ChannelSELayer
from torch import nn

__all__ = ["CBAM", "SCSE", "EfficientChannelAttention"]


class EfficientChannelAttention(nn.Module):
    """
    Gate channels by a short 1-D convolution over their averages (ECA-Net, Wang et al., 2020, arXiv:1910.03151).

    Args:
        channels: number of channels ``C``; the kernel is ``|log2(C) / 2 + 1 / 2|``, made odd.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = int(abs(math.log2(channels) / 2 + 0.5))
        kernel += 1 - kernel % 2
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gate features of shape ``(B, C, H, W)``."""
        pooled = x.mean(dim=(2, 3)).unsqueeze(1)  # (B, 1, C)
        return x * torch.sigmoid(self.conv(pooled)).transpose(1, 2).unsqueeze(-1)


class CBAM(nn.Module):
    """
    Gate channels, then positions, each from average and maximum (Woo et al., 2018, arXiv:1807.06521).

    Args:
        channels: number of channels ``C``.
        reduction: ``C`` over the hidden width of the channel gate.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.spatial = nn.Sequential(nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gate features of shape ``(B, C, H, W)``."""
        gate = torch.sigmoid(self.mlp(x.mean(dim=(2, 3))) + self.mlp(x.amax(dim=(2, 3))))
        x = x * gate[:, :, None, None]
        pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.spatial(pooled))


class SCSE(nn.Module):
    """
    Sum of a channel gate and a position gate (scSE, Roy et al., 2018, arXiv:1803.02579).

    Args:
        channels: number of channels ``C``.
        reduction: ``C`` over the hidden width of the channel gate; 2 in the paper.
    """

    def __init__(self, channels: int, reduction: int = 2) -> None:
        super().__init__()
        self.channel = ChannelSELayer(2, channels, r=reduction)
        self.position = nn.Conv2d(channels, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gate features of shape ``(B, C, H, W)``."""
        return self.channel(x) + x * torch.sigmoid(self.position(x))
