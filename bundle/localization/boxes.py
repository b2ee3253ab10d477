# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Boxes from heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F

from bundle.localization.components import component_of_maximum
from bundle.rules import number_in, shown, whole_number

__all__ = ["box_coverage", "boxes_from_heatmaps", "falling_fractions", "mean_inside"]


def falling_fractions(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """
    Return a setting of one or more fractions in (0, 1] that fall.

    Args:
        name: of the setting.
        values: what was given.

    Raises:
        ValueError: When they are none.
    """
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ValueError(f"{name} must be a list of one or more fractions, got {shown(values)}.")
    fractions = tuple(number_in(name, value, 0, 1, without_low=True) for value in values)
    if any(low >= high for high, low in pairwise(fractions)):
        raise ValueError(f"{name} must descend within (0, 1], got {list(values)}.")
    return fractions


def boxes_from_heatmaps(
    heatmaps: torch.Tensor,
    size: tuple[int, int],
    thresholds: Sequence[float] = (0.8, 0.6, 0.4),
    upsample: int = 4,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return one box per threshold around the hottest component of every heatmap, ranked by the mean heat inside.

    Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958), Sec. 3.2, "3 bboxs generated from each map by adjusting
    the intensity threshold"; thresholds are fractions of the map's maximum. A box that repeats the one of a higher
    threshold is left out, so a map may have fewer boxes, and an empty map has none.

    Args:
        heatmaps: values 0..1, shape ``(B, C, H, W)``.
        size: rows and columns of the image the boxes are for; the heatmap covers it whole.
        thresholds: ``K`` fractions in (0, 1], in descending order.
        upsample: factor of bilinear upsampling before the threshold; boxes end on this finer grid.

    Returns:
        boxes ``(B, C, K, 4)`` as left, upper, right, lower edge in pixels of the image, and their scores ``(B, C, K)``,
        the mean heat inside, descending; a score of 0 and a box of zeros where there is none.

    Raises:
        ValueError: When ``thresholds`` are not descending in (0, 1], or ``upsample`` is no whole number above 0.
    """
    falling_fractions("thresholds", thresholds)
    whole_number("upsample", upsample)
    heat = heatmaps
    if upsample > 1:
        heat = F.interpolate(heat, scale_factor=float(upsample), mode="bilinear", align_corners=False)
    height, width = heat.shape[-2:]
    levels = heat.new_tensor(list(thresholds)).view(-1, 1, 1) * heat.amax(dim=(-2, -1), keepdim=True).unsqueeze(2)
    inside = component_of_maximum(heat.unsqueeze(2).expand(-1, -1, len(thresholds), -1, -1), levels)  # (B, C, K, H, W)
    rows, columns = inside.any(dim=-1), inside.any(dim=-2)
    edges = torch.stack(
        [_first(columns), _first(rows), width - _first(columns.flip(-1)), height - _first(rows.flip(-1))]
    )
    edges = edges.permute(1, 2, 3, 0)  # (B, C, K, 4) on the heatmap's grid
    exists = inside.flatten(-2).any(dim=-1)
    repeats = torch.zeros_like(exists)
    repeats[:, :, 1:] = (edges[:, :, 1:] == edges[:, :, :-1]).all(dim=-1)
    scores = mean_inside(heat, edges).clamp_min(torch.finfo(heat.dtype).tiny).masked_fill(~exists | repeats, 0)
    scale = edges.new_tensor([size[1] / width, size[0] / height] * 2, dtype=heat.dtype)
    boxes = (edges * scale).masked_fill((scores == 0).unsqueeze(-1), 0)
    scores, order = scores.sort(dim=-1, descending=True, stable=True)
    return boxes.gather(2, order.unsqueeze(-1).expand_as(boxes)), scores


def box_coverage(boxes: torch.Tensor, size: Sequence[int], grid: Sequence[int]) -> torch.Tensor:
    """
    Return the part of each cell of a map that is covered by a box.

    Args:
        boxes: left, upper, right, lower edge in pixels of the image, shape ``(K, 4)``, ``K`` at least 1.
        size: rows and columns of the image.
        grid: rows and columns ``H, W`` of the map, which covers the image whole.

    Returns:
        values 0..1, shape ``(H, W)``; where boxes overlap, the largest part.
    """
    x0, y0, x1, y1 = (boxes.double() * boxes.new_tensor([grid[1] / size[1], grid[0] / size[0]] * 2).double()).unbind(1)

    def along(low: torch.Tensor, high: torch.Tensor, cells: int) -> torch.Tensor:
        edges = torch.arange(cells, dtype=low.dtype, device=low.device)
        return (torch.minimum(high[:, None], edges + 1) - torch.maximum(low[:, None], edges)).clamp_min(0)

    covered = along(y0, y1, grid[0])[:, :, None] * along(x0, x1, grid[1])[:, None, :]
    return covered.amax(dim=0).to(boxes.dtype)


def _first(hits: torch.Tensor) -> torch.Tensor:
    """Index of the first ``True`` along the last axis, 0 where there is none."""
    return hits.to(torch.uint8).argmax(dim=-1)


def mean_inside(heat: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``heat (B, C, H, W)`` inside whole-pixel ``edges (B, C, K, 4)``, from its integral image."""
    width = heat.shape[-1]
    integral = F.pad(heat.to(torch.float64).cumsum(-1).cumsum(-2), (1, 0, 1, 0)).flatten(
        -2
    )  # (B, C, (H + 1) * (W + 1))
    x0, y0, x1, y1 = edges.unbind(-1)

    def corner(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return integral.gather(-1, y * (width + 1) + x)

    total = corner(y1, x1) - corner(y0, x1) - corner(y1, x0) + corner(y0, x0)
    return (total / ((x1 - x0) * (y1 - y0)).clamp_min(1)).to(heat.dtype)
