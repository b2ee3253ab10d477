# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The center bank of ADFA: one stored feature per position, and the mean that fills it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from monai.utils import CommonKeys
from torch import nn

from bundle.anomaly.topk.distance import COST_SCALES, soft_topk_distance
from bundle.training.processes.reduction import summed

__all__ = ["CenterBank", "mean_embedding"]


class CenterBank(nn.Module):
    """
    Soft top-k distance of each patch to the stored centers (ADFA Eq. 3 to 6).

    The centers are a buffer of a shape fixed at construction, so they are saved, exported and loaded with the network.

    Args:
        num_centers: number of stored features ``K``; one per position in the paper.
        channels: feature size ``C``.
        k: how many nearest centers count.
        epsilon: regularization of SOFT top-k; 0 is the hard top-k.
        scale: divisor of the cost, see :py:func:`bundle.anomaly.topk.distance.cost_scale`.

    Raises:
        ValueError: When ``k``, ``epsilon`` or ``scale`` is out of range.
    """

    def __init__(
        self, num_centers: int, channels: int, k: int = 3, epsilon: float = 0.0, scale: str = "row_mean"
    ) -> None:
        super().__init__()
        if not 1 <= k <= num_centers:
            raise ValueError(f"k must be in [1, {num_centers}], got {k}.")
        if not epsilon >= 0:
            raise ValueError(f"epsilon must be at least 0, got {epsilon}.")
        if scale not in COST_SCALES:
            raise ValueError(f"scale must be one of {COST_SCALES}, got '{scale}'.")
        self.k, self.epsilon, self.scale = k, float(epsilon), scale  # TorchScript takes no int for a float
        self.register_buffer("centers", torch.zeros(num_centers, channels))
        self.centers: torch.Tensor

    @torch.no_grad()
    def set_centers(self, centers: torch.Tensor) -> None:
        """
        Store new centers.

        Args:
            centers: shape ``(num_centers, channels)``.

        Raises:
            ValueError: When the shape differs or a value is not finite.
        """
        if centers.shape != self.centers.shape:
            raise ValueError(f"centers must have shape {tuple(self.centers.shape)}, got {tuple(centers.shape)}.")
        if not bool(centers.isfinite().all()):
            raise ValueError("centers must be finite, got NaN or infinity.")
        self.centers.copy_(centers)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches ``(B, N, C)`` to the summed distances ``Z^T D`` to their nearest centers, shape ``(B, N)``."""
        return soft_topk_distance(patches, self.centers, self.k, self.epsilon, self.scale)


@torch.no_grad()
def mean_embedding(network: Any, data_loader: Iterable, reduce: bool = True) -> torch.Tensor:
    """
    Return the mean embedding of all images, per position (ADFA Eq. 3).

    Args:
        network: un-wrapped module with ``describe(images) -> (B, N, C)`` and a ``center_bank``.
        data_loader: each normal image once; batches are images ``(B, C, H, W)`` or dictionaries with them as
            ``image``.
        reduce: over all processes, each of which then sees a part of the images.

    Returns:
        shape ``(N, C)``.
    """
    centers = network.center_bank.centers
    total, count = torch.zeros_like(centers, dtype=torch.float64), 0
    for batch in data_loader:
        images = batch[CommonKeys.IMAGE] if isinstance(batch, Mapping) else batch
        patches = network.describe(images.to(centers.device))
        total += patches.double().sum(dim=0)
        count += patches.shape[0]
    mean = total / count
    if reduce:
        total, number = summed(total, count)
        mean = total / number
    return mean.to(centers.dtype)
