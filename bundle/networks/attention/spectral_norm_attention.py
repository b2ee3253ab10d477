# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Spectral norm attention: positions weighted by the leading directions of the mean feature map."""

from __future__ import annotations

import torch
from torch import nn

from bundle.networks.attention.spectral import low_rank_approximation

__all__ = ["SpectralNormAttention"]


class SpectralNormAttention(nn.Module):
    """
    Weight positions by the softmax of a low-rank approximation of the mean feature map; no parameters.

    Fang et al., 2022, "Combating spatial redundancy with spectral norm attention in convolutional learners"
    (https://doi.org/10.1016/j.neucom.2022.09.008), Eq. 1-2: the features of one image are averaged over their channels
    to one ``H x W`` matrix ``M``, and its rank-one approximation goes through a softmax over all positions.

    Departure, on by default: the weights are multiplied by ``H * W``, so that their mean is 1. Without it a 56 x 56 map
    shrinks about 3,000 times, below the ``eps`` of the next batch norm; ``preserve_mean=False`` is the equation.

    Args:
        rank: number of singular directions; 1 is the paper's default, 2 was the best in its Fig. 4.
        combine: ``"multiply"`` (the paper) or ``"add"`` (the authors' released code).
        preserve_mean: scale the weights to a mean of 1.
        num_squarings: of the power iteration, ``2 ** num_squarings`` steps.
        exact: full decomposition instead of the power iteration, see :py:func:`low_rank_approximation`.

    Raises:
        ValueError: When ``rank`` or ``num_squarings`` is below 1, or ``combine`` is unknown.
    """

    def __init__(
        self,
        rank: int = 1,
        combine: str = "multiply",
        preserve_mean: bool = True,
        num_squarings: int = 8,
        exact: bool = False,
    ) -> None:
        super().__init__()
        if rank < 1 or num_squarings < 1:
            raise ValueError(f"rank and num_squarings must be at least 1, got {rank} and {num_squarings}.")
        if combine not in ("multiply", "add"):
            raise ValueError(f"combine must be 'multiply' or 'add', got '{combine}'.")
        self.rank, self.combine, self.preserve_mean = rank, combine, preserve_mean
        self.num_squarings, self.exact = num_squarings, exact

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        """
        Return the weight of every position, to look at as well as to multiply with.

        Args:
            x: features, shape ``(B, C, H, W)``.

        Returns:
            positive weights, shape ``(B, 1, H, W)``, float32 or float64; their sum is 1, or ``H * W`` with
            ``preserve_mean``. A constant map and a zero map give equal weights.
        """
        matrix = x.mean(dim=1, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)  # (B, H, W)
        low_rank = low_rank_approximation(matrix, self.rank, self.num_squarings, self.exact)
        weights = torch.softmax(low_rank.flatten(1), dim=1).view_as(matrix).unsqueeze(1)
        return weights * (x.shape[2] * x.shape[3]) if self.preserve_mean else weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: features, shape ``(B, C, H, W)``.

        Returns:
            weighted features of the same shape and dtype.
        """
        weights = self.attention(x).to(x.dtype)
        return x + weights if self.combine == "add" else x * weights
