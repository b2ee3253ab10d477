# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""First and second moments of patch features, which add up over images, processes and folds."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["PatchStatistics"]


@dataclass(frozen=True)
class PatchStatistics:
    """
    Sums over images of patch features at ``P`` positions with ``D`` channels, in float64.

    The sums of two parts of the images add up to those of all, and those of a fold can be taken from them.

    Attributes:
        count: number of images.
        total: sum of the features of each position, shape ``(P, D)``.
        products: sum of ``x x^T`` over images and positions, shape ``(D, D)``.
    """

    count: int
    total: torch.Tensor
    products: torch.Tensor

    @classmethod
    def of(cls, features: torch.Tensor) -> PatchStatistics:
        """Return the statistics of features ``(B, D, h, w)``."""
        x = features.flatten(2).transpose(1, 2).double()  # (B, P, D)
        rows = x.flatten(0, 1)
        return cls(len(x), x.sum(dim=0), rows.T @ rows)

    def __add__(self, other: PatchStatistics) -> PatchStatistics:
        """Return the statistics of both parts."""
        return PatchStatistics(self.count + other.count, self.total + other.total, self.products + other.products)

    def __sub__(self, other: PatchStatistics) -> PatchStatistics:
        """Return the statistics without a part."""
        return PatchStatistics(self.count - other.count, self.total - other.total, self.products - other.products)

    def mean(self) -> torch.Tensor:
        """Return the mean over images and positions, shape ``(D,)``."""
        return self.total.mean(dim=0) / self.count

    def covariance(self, within_positions: bool = True) -> torch.Tensor:
        """
        Return the covariance of all patches.

        Args:
            within_positions: of the deviations from the mean of each position, the covariance that PaDiM estimates for
                each position, pooled; otherwise of the deviations from the mean of all.

        Returns:
            shape ``(D, D)``.
        """
        positions = self.total.shape[0]
        if within_positions:
            center = self.total.T @ self.total / (self.count**2 * positions)
        else:
            center = torch.outer(self.mean(), self.mean())
        return self.products / (self.count * positions) - center
