# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""How far the features of a picture are from those of the training images, where it is most like them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["cell_means", "cells_of", "cross_fitted_distances", "typical_distance"]

SIDE, CHANNELS, FOLDS, QUARTILE = 4, 128, 5, 0.25
LEAST_SIDE = 7  # positions of a map; in a smaller one each position sees the whole image, and a finding changes all


def cells_of(features: torch.Tensor) -> torch.Tensor | None:
    """
    Return the means of a feature map over the cells of a 4 x 4 grid.

    Args:
        features: shape ``(B, C, H, W)``; of more than 128 channels every n-th is taken.

    Returns:
        shape ``(B, 16, C)`` with at most 128 channels, or ``None`` for a map of less than 7 x 7 positions.

    Example:
        >>> cells_of(torch.zeros(2, 256, 14, 14)).shape
        torch.Size([2, 16, 128])
    """
    if min(features.shape[-2:]) < LEAST_SIDE:
        return None
    step = -(-features.shape[1] // CHANNELS)
    return F.adaptive_avg_pool2d(features[:, ::step].float(), SIDE).flatten(2).transpose(1, 2)


def cell_means(cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Return mean and deviation of each channel in each cell over images.

    Args:
        cells: shape ``(N, 16, C)``.

    Returns:
        two tensors of shape ``(16, C)``; a deviation is at least a thousandth of the features' size.
    """
    floor = 1e-3 * cells.square().mean().sqrt() + 1e-12
    return cells.mean(dim=0), cells.std(dim=0).clamp_min(floor)


def typical_distance(cells: torch.Tensor, mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """
    Return how far images are from the training images in the quarter of their cells that is most like them.

    The distance in a cell is the root mean square of the standardized channels, about 1 for an image like the others.
    A finding makes some cells unusual, large ones most; another kind of picture is unusual everywhere. So the lower
    quartile over the cells tells the two apart.

    Args:
        cells: shape ``(B, 16, C)``.
        mean: shape ``(16, C)``.
        deviation: shape ``(16, C)``, positive.

    Returns:
        shape ``(B,)``.

    Example:
        >>> typical_distance(torch.full((1, 16, 3), 2.0), torch.zeros(16, 3), torch.ones(16, 3))
        tensor([2.])
    """
    distance = ((cells - mean) / deviation).square().mean(dim=-1).sqrt()
    return distance.quantile(QUARTILE, dim=1)


def cross_fitted_distances(cells: torch.Tensor) -> torch.Tensor:
    """
    Return the distance of each image from the images of the other four of five folds.

    Args:
        cells: shape ``(N, 16, C)`` with ``N`` at least 10.

    Returns:
        shape ``(N,)``.
    """
    fold = torch.arange(len(cells)) % FOLDS
    distances = torch.empty(len(cells))
    for number in range(FOLDS):
        mean, deviation = cell_means(cells[fold != number])
        distances[fold == number] = typical_distance(cells[fold == number], mean, deviation)
    return distances
