# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the hottest point of a map lies where something was annotated, for every family that has maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bundle.training.finite import check_finite

__all__ = ["compute_pointing_game"]


def compute_pointing_game(points: torch.Tensor, truths: Sequence[torch.Tensor]) -> float:
    """
    Return the fraction of annotated images whose hottest point lies in an annotated box.

    Zhang et al. (ECCV 2016, https://arxiv.org/abs/1608.00507), without their margin.

    Args:
        points: column and row of each image's hottest point in pixels, shape ``(N, 2)``.
        truths: annotated boxes of each image, left, upper, right, lower edge in pixels, shape ``(M, 4)``; images
            without any are left out.

    Returns:
        0..1, ``nan`` when nothing is annotated.

    Raises:
        ValueError: When there is not one list of annotations for each point, no image, or a point or an edge is not
            finite.

    Example:
        >>> compute_pointing_game(torch.tensor([[2.5, 0.5], [9.0, 9.0]]), [torch.tensor([[2.0, 0, 4, 4]])] * 2)
        0.5
    """
    if len(points) != len(truths) or len(truths) == 0:
        raise ValueError(f"one list of annotations is needed for each point, got {len(truths)} for {len(points)}.")
    check_finite("points", points.numpy())
    for truth in truths:
        check_finite("annotated boxes", truth.numpy())
    hits = [
        bool(((truth[:, :2] <= point) & (point < truth[:, 2:])).all(dim=1).any())
        for point, truth in zip(points, truths, strict=True)
        if len(truth)
    ]
    return float(np.mean(hits)) if hits else float("nan")
