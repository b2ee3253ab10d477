# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The loss of the boxes, where some images have them."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["BoxAttentionLoss"]


class BoxAttentionLoss(nn.Module):
    """
    How far the softmax over the positions of a map is from an even spread over the annotated boxes.

    ``KL(b || softmax(H))`` with ``b`` the part of each cell that a box covers, divided by its sum. No constant added to
    a map changes it, so it asks where a class is and leaves to the image label whether it is there; the mean of a map,
    its logit, stays free. It is 0 for a map that is level in the boxes and far lower outside.
    """

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: class activation maps with annotated boxes, any real values, shape ``(K, H, W)``.
            target: part of each cell that a box covers, 0..1, not 0 everywhere, same shape.

        Returns:
            the mean over the ``K`` maps, a scalar not below 0; 0 without a map.

        Raises:
            ValueError: When the shapes differ.
        """
        if input.shape != target.shape:
            raise ValueError(f"target must be of shape {tuple(input.shape)}, got {tuple(target.shape)}.")
        if len(input) == 0:
            return input.sum()
        spread = target.flatten(1) / target.flatten(1).sum(dim=1, keepdim=True)
        return (torch.xlogy(spread, spread) - spread * input.flatten(1).log_softmax(dim=1)).sum(dim=1).mean()
