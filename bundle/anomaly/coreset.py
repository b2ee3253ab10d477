# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A few of many points that lie near all of them."""

from __future__ import annotations

import torch

from bundle.networks.plain import plain_tensor

__all__ = ["greedy_coreset"]

PROJECTED_CHANNELS = 128  # that distances are compared in, where there are more


def greedy_coreset(points: torch.Tensor, size: int, generator: torch.Generator) -> torch.Tensor:
    """
    Return which points to keep: each next one is the farthest from those kept so far (PatchCore, Algorithm 1).

    No point is then farther from a kept one than twice what the best choice of as many could do (Gonzalez, 1985). As in
    PatchCore, wide features are compared after a random projection, which keeps distances roughly.

    Args:
        points: shape ``(N, D)``; half precision is widened to float32.
        size: how many to keep, from 1 to N.
        generator: draws the first point and the projection, on the CPU.

    Returns:
        positions, shape ``(size,)``.

    Raises:
        ValueError: When ``size`` is not in [1, N].

    Example:
        >>> kept = greedy_coreset(torch.tensor([[0.0], [0.1], [9.0], [9.1]]), 2, torch.Generator())
        >>> sorted((kept // 2).tolist())
        [0, 1]
    """
    if not 1 <= size <= len(points):
        raise ValueError(f"size must be in [1, {len(points)}], got {size}.")
    points = plain_tensor(points)
    x = points.to(torch.promote_types(points.dtype, torch.float32))
    x = x - x.mean(dim=0)  # or squares of a large offset would take the digits
    if x.shape[1] > PROJECTED_CHANNELS:
        x = x @ torch.randn(x.shape[1], PROJECTED_CHANNELS, generator=generator).to(x)
    norms = x.square().sum(dim=1)
    kept = torch.empty(size, dtype=torch.long, device=x.device)
    kept[0] = torch.randint(len(x), (), generator=generator)
    nearest = torch.full_like(norms, torch.inf)  # squared distance to the nearest kept point
    for i in range(1, size):
        last = kept[i - 1]
        nearest = torch.minimum(nearest, norms - 2 * (x @ x[last]) + norms[last])
        nearest[last] = -torch.inf  # not again, where all are alike
        kept[i] = nearest.argmax()
    return kept
