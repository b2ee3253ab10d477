# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The anchors of a pyramid, and the boxes that a network's numbers make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.apps.detection.utils.anchor_utils import AnchorGenerator

__all__ = ["anchor_cells", "decoded_boxes", "grid_anchors"]


def anchor_cells(strides: Sequence[int], scale: float, ratios: Sequence[float]) -> torch.Tensor:
    """
    Return the anchors around one position of each level, by MONAI's ``AnchorGenerator``.

    Args:
        strides: of the levels, in pixels.
        scale: side of a square anchor in strides of its level.
        ratios: height by width of each anchor; all have the same area.

    Returns:
        left, upper, right, lower edge from the position, whole pixels, shape ``(L, A, 4)``.

    Example:
        >>> anchor_cells([8], 4, [1.0]).tolist()
        [[[-16.0, -16.0, 16.0, 16.0]]]
    """
    sides: list[Any] = [(scale * stride,) for stride in strides]
    generator = AnchorGenerator(sides, [tuple(ratios)] * len(strides))
    return torch.stack(generator.cell_anchors)


def grid_anchors(cells: torch.Tensor, strides: list[int], height: int, width: int) -> torch.Tensor:
    """
    Return all anchors of an image, level by level, row by row, in each position those of ``cells`` in their order.

    Args:
        cells: see :py:func:`anchor_cells`, shape ``(L, A, 4)``.
        strides: of the levels, whole pixels.
        height: of the image, in pixels.
        width: the same.

    Returns:
        left, upper, right, lower edge in pixels, shape ``(N, 4)``.

    Example:
        >>> grid_anchors(anchor_cells([8], 1, [1.0]), [8], 8, 16).tolist()
        [[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]]
    """
    levels: list[torch.Tensor] = []
    for level, stride in enumerate(strides):
        rows, columns = (height + stride - 1) // stride, (width + stride - 1) // stride
        y = (torch.arange(rows, device=cells.device) * stride + stride // 2).to(cells.dtype)
        x = (torch.arange(columns, device=cells.device) * stride + stride // 2).to(cells.dtype)
        at_x, at_y = x[None, :].expand(rows, columns), y[:, None].expand(rows, columns)
        centers = torch.stack([at_x, at_y, at_x, at_y], dim=-1).reshape(-1, 1, 4)
        levels.append((centers + cells[level][None]).reshape(-1, 4))
    return torch.cat(levels)


def decoded_boxes(steps: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """
    Return the boxes that a network's numbers make of anchors.

    Girshick et al., "Rich feature hierarchies" (CVPR 2014, https://arxiv.org/abs/1311.2524), Eq. 1 to 4: the center
    moves by shares of the anchor's sides, and the sides grow by powers of e; at most to 62.5 times their length.

    Args:
        steps: of center in columns and rows, and of the logarithms of width and height, shape ``(B, N, 4)``.
        anchors: left, upper, right, lower edge in pixels, shape ``(N, 4)``.

    Returns:
        edges in pixels, not clipped to any image, shape ``(B, N, 4)``.

    Example:
        >>> decoded_boxes(torch.tensor([[[0.5, 0.0, 0.0, 0.0]]]), torch.tensor([[0.0, 0.0, 8.0, 8.0]])).tolist()
        [[[4.0, 0.0, 12.0, 8.0]]]
    """
    sides = anchors[:, 2:] - anchors[:, :2]
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2 + steps[..., :2] * sides
    half = steps[..., 2:].clamp(max=4.135166556742356).exp() * sides / 2  # log(1000 / 16), as in MONAI's coder
    return torch.cat([centers - half, centers + half], dim=-1)
