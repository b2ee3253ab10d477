# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps of a network as values 0..1."""

from __future__ import annotations

import torch

__all__ = ["normalized_maps"]


def normalized_maps(maps: torch.Tensor, masks: torch.Tensor | None = None) -> torch.Tensor:
    """
    Return every map stretched to 0..1 over the positions that are not erased; erased positions are 0.

    Erased positions take no part in the range: were they counted as the zeros of Eq. 7, they would be the maximum of a
    map that is negative elsewhere. So an all-negative map is stretched like any other (its label is known, only the
    place is asked for), and a constant map and a map erased everywhere become 0 everywhere.

    Args:
        maps: any real values, shape ``(..., H, W)``.
        masks: ``True`` (or 1) where not erased, same shape; ``None`` erases nothing.

    Returns:
        values 0..1, same shape.
    """
    keep = torch.ones_like(maps, dtype=torch.bool) if masks is None else masks.bool()
    low = maps.masked_fill(~keep, torch.inf).amin(dim=(-2, -1), keepdim=True)
    high = maps.masked_fill(~keep, -torch.inf).amax(dim=(-2, -1), keepdim=True)
    flat = high <= low  # constant, or nothing left: low is +inf and high -inf then
    out = (maps - low) / torch.where(flat, torch.ones_like(high), high - low)
    return out.masked_fill(~keep | flat, 0.0)
