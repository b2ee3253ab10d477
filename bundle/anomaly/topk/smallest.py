# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The k smallest values of long rows, by minima of groups: one vectorized pass instead of a selection."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

__all__ = ["k_smallest"]


def k_smallest(values: torch.Tensor, k: int, buffer: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return the ``k`` smallest values of each row, in ascending order, and where they are: ``torch.topk`` for long rows.

    The ``k`` smallest values lie in the ``k`` groups with the smallest minima, whatever the groups are. Minima of
    groups of 8 whose members lie an eighth of the row apart are one vectorized pass; then only ``8 k`` candidates are
    left to select from, and the minima are reduced in the same way. A selection over the whole row takes longer on a
    CPU.

    Args:
        values: shape ``(R, n)``; a NaN makes what its row returns undefined.
        k: how many, ``1 <= k <= n``.
        buffer: for the minima, overwritten, shape of ``values``; fresh memory takes as long as the pass itself. It is
            left alone where the values have a gradient.

    Returns:
        the values and their positions in the row, both of shape ``(R, k)``. Of equal values any may be returned.
    """
    group_size, shortest = 8, max(512, 32 * k)  # shorter rows are selected from as they are
    plain = values.device.type != "cpu"
    if not torch.jit.is_scripting():
        plain = plain or torch.compiler.is_compiling()  # a graph needs no second way
    levels = [values]
    while not plain and levels[-1].shape[1] >= shortest:
        last = levels[-1]
        missing = -last.shape[1] % group_size
        padded = F.pad(last, [0, missing], value=math.inf) if missing else last
        levels[-1] = padded
        groups = padded.view(padded.shape[0], group_size, -1)
        if buffer is None or values.requires_grad:  # what is written into has no gradient
            levels.append(groups.amin(dim=1))
        else:
            minima, buffer = buffer[:, : groups.shape[2]], buffer[:, groups.shape[2] :]
            levels.append(torch.amin(groups, [1], out=minima))
    found = torch.topk(levels[-1], k, dim=-1, largest=False, sorted=True)
    smallest, places = found.values, found.indices
    for i in range(len(levels) - 2, -1, -1):
        apart = levels[i].shape[1] // group_size
        members = torch.arange(0, group_size * apart, apart, device=values.device)[:, None]
        candidates = (places[:, None, :] + members).flatten(1)  # (R, 8 k)
        found = torch.topk(levels[i].gather(1, candidates), k, dim=-1, largest=False, sorted=True)
        smallest, places = found.values, candidates.gather(1, found.indices)
    return smallest, places
