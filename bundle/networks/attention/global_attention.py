# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Attention between all pairs of positions: the non-local block (SA) and attention augmentation (AA)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["AttentionAugmentation", "NonLocal"]


class NonLocal(nn.Module):
    """
    Self-attention with a residual connection, the embedded Gaussian of Wang et al., 2018 (arXiv:1711.07971).

    The last projection starts at 0, so the block starts as the identity.

    Args:
        channels: number of channels ``C``; the inner width is ``C / 2``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.query = nn.Conv2d(channels, inner, 1, bias=False)
        self.key = nn.Conv2d(channels, inner, 1, bias=False)
        self.value = nn.Conv2d(channels, inner, 1, bias=False)
        self.project = nn.Conv2d(inner, channels, 1, bias=False)
        nn.init.zeros_(self.project.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add to features of shape ``(B, C, H, W)`` what every position draws from all others."""
        b, _, h, w = x.shape
        q, k, v = [f.flatten(2).transpose(1, 2) for f in (self.query(x), self.key(x), self.value(x))]  # (B, H*W, C/2)
        y = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return x + self.project(y.transpose(1, 2).reshape(b, -1, h, w))


class AttentionAugmentation(nn.Module):
    """
    Concatenation of a convolution and multi-head self-attention with relative positions.

    Bello et al., 2019, arXiv:1904.09925. The paper augments a 3x3 convolution of the network. As a block that leaves
    the network's own convolutions alone, so that pretrained weights fit, the convolution here is 1x1. The relative
    position tables belong to one feature-map size; another size gets them by linear interpolation.

    Args:
        channels: number of channels ``C``, divisible by ``4 * num_heads``.
        size: height and width of the feature map that the tables are stored for.
        num_heads: heads; queries, keys and values are ``C / 4`` wide in all (the paper's kappa and upsilon of 0.25).

    Raises:
        ValueError: When ``channels`` is not divisible by ``4 * num_heads``.
    """

    def __init__(self, channels: int, size: tuple[int, int], num_heads: int = 4) -> None:
        super().__init__()
        if channels % (4 * num_heads):
            raise ValueError(f"channels must be divisible by 4 * num_heads = {4 * num_heads}, got {channels}.")
        self.num_heads, self.width = num_heads, channels // 4
        head = self.width // num_heads
        self.conv = nn.Conv2d(channels, channels - self.width, 1)
        self.qkv = nn.Conv2d(channels, 3 * self.width, 1)
        self.project = nn.Conv2d(self.width, self.width, 1)
        self.rows = nn.Parameter(torch.randn(2 * size[0] - 1, head) * head**-0.5)
        self.columns = nn.Parameter(torch.randn(2 * size[1] - 1, head) * head**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Replace features of shape ``(B, C, H, W)`` by the concatenation, of the same shape."""
        b, _, h, w = x.shape
        q, k, v = [f.view(b, self.num_heads, -1, h * w).transpose(2, 3) for f in self.qkv(x).chunk(3, dim=1)]
        grid = q.reshape(b, self.num_heads, h, w, -1)
        # (B, heads, H, W, H) and (B, heads, H, W, W): query times the embedding of the offset to each row and column
        rows = torch.einsum("bnhwd,hkd->bnhwk", grid, self._offsets(self.rows, h))
        columns = torch.einsum("bnhwd,wkd->bnhwk", grid, self._offsets(self.columns, w))
        bias = (rows.unsqueeze(-1) + columns.unsqueeze(-2)).reshape(b, self.num_heads, h * w, h * w)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias * q.shape[-1] ** -0.5)
        y = self.project(y.transpose(2, 3).reshape(b, self.width, h, w))
        return torch.cat([self.conv(x), y], dim=1)

    def _offsets(self, table: torch.Tensor, length: int) -> torch.Tensor:
        """Return the row of ``table`` for every (query, key) offset, shape ``(length, length, head width)``."""
        if table.shape[0] != 2 * length - 1:
            table = F.interpolate(table.t().unsqueeze(0), size=2 * length - 1, mode="linear", align_corners=True)[0].t()
        position = torch.arange(length, device=table.device)
        return table[position[None, :] - position[:, None] + length - 1]
