# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Distances between patch features and stored centers."""

from __future__ import annotations

import torch

__all__ = ["euclidean_distances", "squared_distances"]


def squared_distances(patches: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """
    Return the squared Euclidean distance from every patch to every center.

    Uses ``||p - c||^2 = ||p||^2 + ||c||^2 - 2 p.c``, so no tensor of shape ``(..., N, K, C)`` is built.

    Args:
        patches: patch features, shape ``(..., N, C)``.
        centers: stored features, shape ``(K, C)``.

    Returns:
        distances in squared feature units, shape ``(..., N, K)``, never negative.

    Raises:
        ValueError: When the two feature sizes ``C`` differ.

    Example:
        >>> squared_distances(torch.zeros(1, 1, 2), torch.tensor([[3.0, 4.0]])).item()
        25.0
    """
    if patches.shape[-1] != centers.shape[-1]:
        raise ValueError(f"patches and centers must share C, got {patches.shape[-1]} and {centers.shape[-1]}.")
    p2 = patches.square().sum(dim=-1, keepdim=True)  # (..., N, 1)
    c2 = centers.square().sum(dim=-1)  # (K,)
    # rounding can push a true zero just below 0, and the caller takes a square root
    return (p2 + c2 - 2 * patches @ centers.T).clamp_min(0)


def euclidean_distances(patches: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """
    Return the Euclidean distance from every patch to every center (ADFA Eq. 4).

    A distance of exactly 0 is returned as ``1e-6``, where the square root still has a finite gradient.

    Args:
        patches: patch features, shape ``(..., N, C)``, float32 or float64: half precision has no ``1e-12``.
        centers: stored features, shape ``(K, C)``.

    Returns:
        distances in feature units, shape ``(..., N, K)``, at least ``1e-6``.

    Raises:
        ValueError: When the two feature sizes ``C`` differ.
    """
    return squared_distances(patches, centers).clamp_min(1e-12).sqrt()
