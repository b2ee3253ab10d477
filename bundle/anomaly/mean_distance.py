# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The loss of ADFA."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["MeanDistanceLoss"]


class MeanDistanceLoss(nn.Module):
    """Mean of the soft top-k distances over patches and images (ADFA Eq. 5); normal images need no target."""

    def forward(self, input: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            input: map of distances, shape ``(B, 1, H, W)``.
            target: ignored; it is here so that stock trainers accept the loss.

        Returns:
            the mean, a scalar.
        """
        return input.mean()
