# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Distances between patch features and stored centers."""

from __future__ import annotations

import torch

from bundle.networks.plain import full_precision, plain_tensor

__all__ = ["euclidean_distances", "expanded_squares", "square_roots_", "squared_distances"]


def squared_distances(patches: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """
    Return the squared Euclidean distance from every patch to every center.

    Uses ``||p - c||^2 = ||p||^2 + ||c||^2 - 2 p.c``, so no tensor of shape ``(..., N, K, C)`` is built. The mean of the
    centers is subtracted from both first: it changes no distance, and without it features that share a large offset
    would leave nothing of the difference (offset 1000, spread 0.1 in float32).

    Args:
        patches: patch features, shape ``(..., N, C)``; half precision is widened to float32.
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
    patches, centers = plain_tensor(patches), plain_tensor(centers)
    wide = torch.promote_types(torch.promote_types(patches.dtype, centers.dtype), torch.float32)
    patches, centers = patches.to(wide), centers.to(wide)
    shift = centers.detach().mean(dim=0)  # a constant: no distance depends on it, so it has no gradient
    return expanded_squares(patches - shift, centers - shift)


def expanded_squares(patches: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """
    Return squared distances by the expansion alone, for features that are centered and of one type.

    Args:
        patches: shape ``(..., N, C)``, float32 or float64.
        centers: shape ``(K, C)``, with a mean near 0.

    Returns:
        shape ``(..., N, K)``, never negative.
    """
    p2 = patches.square().sum(dim=-1, keepdim=True)  # (..., N, 1)
    c2 = centers.square().sum(dim=-1)  # (K,)
    if torch.jit.is_scripting():
        product = patches @ centers.T
    else:
        with full_precision(patches):
            product = patches @ centers.T
    # rounding can push a true zero just below 0, and the caller takes a square root
    return (p2 + c2 - 2 * product).clamp_min(0)


def euclidean_distances(patches: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """
    Return the Euclidean distance from every patch to every center (ADFA Eq. 4).

    A distance of exactly 0 is returned as ``1e-6``, where the square root still has a finite gradient.

    Args:
        patches: patch features, shape ``(..., N, C)``; half precision is widened to float32.
        centers: stored features, shape ``(K, C)``.

    Returns:
        distances in feature units, shape ``(..., N, K)``, at least ``1e-6``.

    Raises:
        ValueError: When the two feature sizes ``C`` differ.
    """
    return square_roots_(squared_distances(patches, centers))


def square_roots_(squares: torch.Tensor) -> torch.Tensor:
    """Return distances in the memory of their squares; 0 becomes ``1e-6``, where the root has a finite gradient."""
    return squares.clamp_min_(1e-12).sqrt_()
