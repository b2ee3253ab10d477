# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Normalize class activation maps and join the maps of several mining steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from bundle.localization.components import component_of_maximum
from bundle.localization.erasure import update_masks
from bundle.networks.maps import normalized_maps
from bundle.rules import number_in, whole_number

__all__ = ["final_heatmap", "mined_heatmaps", "prior_on_grid"]


def final_heatmap(maps: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> torch.Tensor:
    """
    Return the mean of the maps of all steps, what was erased filled in from the step that saw it.

    Eq. 8 of Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958),
    ``H_f = 1/T sum_t [H_t + sum_(t'<t) H_t' * (1 - M_t')]``. With raw maps of one frozen network it gives back
    ``H_1`` exactly, whatever was mined; give it maps that were normalized step by step, as the paper normalizes them
    before it binarizes.

    Args:
        maps: ``T`` maps ``H_t``, each 0 where erased before step ``t``, shape ``(..., H, W)``.
        masks: at least ``T - 1`` masks ``M_t`` *after* step ``t``, ``True`` where not erased; more are ignored.

    Returns:
        the final map, shape ``(..., H, W)``; in 0..1 when the maps are.

    Raises:
        ValueError: When there is no map, or fewer than ``T - 1`` masks.
    """
    if not maps or len(masks) < len(maps) - 1:
        raise ValueError(f"T >= 1 maps need at least T - 1 masks, got {len(maps)} maps and {len(masks)} masks.")
    total, filled = maps[0].clone(), torch.zeros_like(maps[0])
    for step in range(1, len(maps)):
        filled = filled + maps[step - 1] * ~masks[step - 1].bool()
        total = total + maps[step] + filled
    return total / len(maps)


def mined_heatmaps(
    maps: torch.Tensor, steps: int = 3, threshold: float = 0.5, prior: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Mine the maps of a frozen network: erase the hottest component, stretch what is left, and again.

    With frozen weights Eq. 7 of Cai et al. (2018) is ``H_t = H_1 * M_(t-1)``, so no further pass is needed.

    Args:
        maps: class activation maps, shape ``(B, C, H, W)``.
        steps: number ``T`` of maps, at least 1.
        threshold: height at which a stretched map is binarized, in (0, 1].
        prior: where something may be, 0..1, of a shape that broadcasts to ``maps``: every stretched map is multiplied
            by it and stretched again. Beyond the paper; ``None`` leaves it out.

    Returns:
        stretched maps of all steps ``(T, B, C, H, W)``, their masks after each step (same shape, boolean), and Eq. 8's
        final map ``(B, C, H, W)``; the maps are all 0..1.

    Raises:
        ValueError: When ``steps`` is below 1, or ``threshold`` is not in (0, 1].
    """
    whole_number("steps", steps)
    number_in("threshold", threshold, 0, 1, without_low=True)  # at 0 a map is one component, and erased whole
    mask = torch.ones_like(maps, dtype=torch.bool)
    heats, masks = [], []
    for _ in range(steps):
        heat = normalized_maps(maps, mask)
        if prior is not None:
            heat = normalized_maps(heat * prior, mask)
        mask = update_masks(mask, component_of_maximum(heat, threshold))
        heats.append(heat)
        masks.append(mask)
    return torch.stack(heats), torch.stack(masks), final_heatmap(heats, masks)


def prior_on_grid(anomaly: torch.Tensor, grid: Sequence[int]) -> torch.Tensor:
    """
    Return anomaly maps as a prior for where to mine: divided by their maximum, on the grid of the maps.

    Args:
        anomaly: values not below 0, shape ``(B, 1, h, w)``; it covers the same image as the maps.
        grid: rows and columns ``H, W`` of the maps.

    Returns:
        values 0..1, shape ``(B, 1, H, W)``, float32 or float64; a map of zeros becomes ones, which favor no place,
        and one with NaN stays NaN.
    """
    wide = anomaly.to(torch.promote_types(anomaly.dtype, torch.float32))  # antialiasing is not built for half precision
    small = F.interpolate(wide, size=list(grid), mode="bilinear", align_corners=False, antialias=True).clamp_min(0)
    peak = small.amax(dim=(-2, -1), keepdim=True)
    return torch.where(peak == 0, torch.ones_like(small), small / peak.clamp_min(torch.finfo(small.dtype).tiny))
