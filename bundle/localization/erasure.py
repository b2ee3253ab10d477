# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Class-wise erasure of activation maps, without ever erasing the features themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["class_activation_maps", "erased_logits", "update_masks"]


def class_activation_maps(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """
    Return one activation map per class, the weighted sum of the feature channels at every position.

    ``H_c = w_c . X`` of Zhou et al. (2016, https://arxiv.org/abs/1512.04150), one 1x1 convolution for all classes.

    Args:
        features: feature map ``X``, shape ``(B, D, H, W)``.
        weight: class weights, shape ``(C, D)``.

    Returns:
        maps in logit units, shape ``(B, C, H, W)``; their spatial mean is the logit.

    Raises:
        ValueError: When ``features`` and ``weight`` differ in ``D``.
    """
    if features.shape[1] != weight.shape[1]:
        raise ValueError(f"features and weight must share D, got {features.shape[1]} and {weight.shape[1]}.")
    return F.conv2d(features, weight[:, :, None, None])


def erased_logits(maps: torch.Tensor, masks: torch.Tensor | None = None) -> torch.Tensor:
    """
    Return the logits that each class branch gives once its own mask has erased the features.

    Eq. 1 and 2 of Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958): ``w_c . GAP(X * M_c)``. Both are linear,
    so this equals ``GAP(H_c * M_c)``, and the tensor of shape ``(B, C, D, H, W)`` is never built.

    Args:
        maps: class activation maps ``H``, shape ``(B, C, H, W)``.
        masks: 0 where erased and 1 elsewhere, of a shape that broadcasts to ``maps``; ``None`` erases nothing.

    Returns:
        logits, shape ``(B, C)``.

    Example:
        >>> erased_logits(torch.tensor([[[[4.0, 8.0]]]]), torch.tensor([[[[1.0, 0.0]]]])).item()
        2.0
    """
    if masks is not None:
        maps = maps * masks.to(maps.dtype)
    return maps.mean(dim=(-2, -1))


def update_masks(masks: torch.Tensor, components: torch.Tensor) -> torch.Tensor:
    """
    Return the masks of the next step: the components found in this one are erased as well.

    Args:
        masks: ``True`` where not yet erased, shape ``(B, C, H, W)``.
        components: ``True`` on the component to erase, same shape.

    Returns:
        boolean masks, same shape; a position once erased stays erased.
    """
    return masks.bool() & ~components.bool()
