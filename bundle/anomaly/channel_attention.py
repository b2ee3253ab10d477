# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Channel attention of the ADFA patch descriptor."""

from __future__ import annotations

import math

import torch
from torch import nn

__all__ = ["AdaptiveChannelAttention", "adaptive_kernel_size"]


def adaptive_kernel_size(channels: int, gamma: int = 2, b: int = 1) -> int:
    """
    Return the odd kernel size that grows with the channels (ECA-Net, Wang et al., 2020, Eq. 12).

    Args:
        channels: number of channels ``C``.
        gamma: divisor of ``log2(C)``.
        b: offset.

    Returns:
        ``|log2(C) / gamma + b / gamma|`` rounded down, the next larger odd number where that is even.

    Example:
        >>> adaptive_kernel_size(448)
        5
    """
    size = int(abs(math.log2(channels) / gamma + b / gamma))
    return size if size % 2 else size + 1


class AdaptiveChannelAttention(nn.Module):
    r"""
    Channel weights from maximum and average pooling through one shared 1-D convolution (ADFA Eq. 1 and 2).

    .. math:: A = \sigma(C1D_k(GMP(P)) + C1D_k(GAP(P))), \qquad P' = P + w\, A \otimes P

    The paper says that the kernel size adapts as in ECA-Net; the released code fixes it at 9.

    Args:
        channels: number of channels ``C``.
        weight: residual weight ``w`` of Eq. 2; 0 switches the attention off.
        kernel_size: odd size of the 1-D convolution; ``None`` adapts it to ``channels``.

    Raises:
        ValueError: When ``kernel_size`` is even or below 1.
    """

    def __init__(self, channels: int, weight: float = 0.1, kernel_size: int | None = None) -> None:
        super().__init__()
        size = adaptive_kernel_size(channels) if kernel_size is None else kernel_size
        if size < 1 or size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and at least 1, got {size}.")
        self.weight = weight
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` of shape ``(B, C, H, W)`` plus its weighted self, the same shape."""
        return x * self.factors(x)

    def factors(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``1 + w A`` of ``x``, shape ``(B, C, 1, 1)``."""
        pooled = torch.stack([x.amax(dim=(-2, -1)), x.mean(dim=(-2, -1))], dim=1)  # (B, 2, C)
        logits = self.conv(pooled.flatten(0, 1).unsqueeze(1)).view_as(pooled).sum(dim=1)  # (B, C)
        return 1 + self.weight * torch.sigmoid(logits)[..., None, None]
