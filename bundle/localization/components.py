# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The connected component of each map's maximum, for a whole batch at once and on its device."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

__all__ = ["component_of_maximum"]

_EIGHT = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])  # neighbors within a map, none across maps


def component_of_maximum(maps: torch.Tensor, threshold: float | torch.Tensor = 0.5) -> torch.Tensor:
    """
    Return, for every map, the 8-connected component of ``map >= threshold`` that holds the map's maximum.

    All maps together: on a CPU SciPy labels them in one pass, elsewhere they are grown on their device. Of several
    equal maxima the first in row order counts. A map whose maximum is below the threshold, or not above 0 (constant and
    fully erased maps after :py:func:`bundle.networks.maps.normalized_maps`), has an empty component.

    Args:
        maps: values 0..1, shape ``(..., H, W)``.
        threshold: height of the binarization, a number or a tensor that broadcasts to ``maps``.

    Returns:
        boolean masks, same shape.

    Example:
        >>> component_of_maximum(torch.tensor([[0.6, 0.0, 0.6, 1.0]])).int().tolist()
        [[0, 0, 1, 1]]
    """
    height, width = maps.shape[-2:]
    allowed = ((maps >= threshold) & (maps > 0)).reshape(-1, height, width)
    highest = maps.reshape(-1, height * width).argmax(dim=1, keepdim=True)
    find = _labeled if maps.device.type == "cpu" else _grown
    return find(allowed, highest).view(maps.shape)


def _labeled(allowed: torch.Tensor, highest: torch.Tensor) -> torch.Tensor:
    """Return the components of ``allowed (N, H, W)`` that hold the positions ``highest (N, 1)``, by labels."""
    labels = torch.from_numpy(ndimage.label(allowed.numpy(), _EIGHT)[0]).flatten(1)
    wanted = labels.gather(1, highest)
    return (labels == wanted) & (wanted > 0)


def _grown(allowed: torch.Tensor, highest: torch.Tensor) -> torch.Tensor:
    """
    Return the same by geodesic dilation: the positions grow inside ``allowed`` until nothing changes, along the whole
    runs of a row and of a column at once, and by one pixel along the diagonals.
    """
    seeds = torch.zeros_like(allowed).flatten(1).scatter_(1, highest, True)
    grown = seeds.view_as(allowed) & allowed
    along_rows, along_columns = _runs(allowed), _runs(allowed.transpose(1, 2))
    while True:
        before = grown
        grown = _fill(grown, along_rows)
        grown = _fill(grown.transpose(1, 2), along_columns).transpose(1, 2)
        grown = _dilated(grown) & allowed  # the diagonal neighbors
        if torch.equal(grown, before):
            return grown


def _runs(allowed: torch.Tensor) -> torch.Tensor:
    """Number the runs of ``True`` along the last axis of ``(N, H, W)``, from 1; 0 outside."""
    starts = allowed.clone()
    starts[..., 1:] &= ~allowed[..., :-1]
    return starts.flatten().cumsum(0).view_as(allowed) * allowed


def _fill(grown: torch.Tensor, runs: torch.Tensor) -> torch.Tensor:
    """Return ``True`` on every run that holds a ``True``; ``grown`` is ``False`` outside of the runs."""
    reached = torch.zeros(runs.numel() + 1, dtype=torch.bool, device=runs.device)
    reached.scatter_(0, (runs * grown).flatten(), True)
    reached[0] = False
    return reached.index_select(0, runs.flatten()).view_as(runs)


def _dilated(grown: torch.Tensor) -> torch.Tensor:
    """Return ``(N, H, W)`` with the eight neighbors of every ``True``; pooling floats takes thirty times as long."""
    tall = grown.clone()
    tall[:, 1:] |= grown[:, :-1]
    tall[:, :-1] |= grown[:, 1:]
    wide = tall.clone()
    wide[:, :, 1:] |= tall[:, :, :-1]
    wide[:, :, :-1] |= tall[:, :, 1:]
    return wide
