# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Class activation maps from features and gradients; every image on its own."""

from __future__ import annotations

import torch

__all__ = ["class_activation_map", "grad_cam", "grad_cam_plus_plus"]


def class_activation_map(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """
    Return the features weighted by the classification layer (CAM, Zhou et al., 2016, arXiv:1512.04150, Eq. 2).

    Args:
        features: input of the global average pooling, shape ``(B, C, H, W)``.
        weights: row of the classification layer for the class of each image, shape ``(B, C)``.

    Returns:
        maps of shape ``(B, 1, H, W)``; their mean is the logit without its bias.
    """
    return torch.einsum("bchw,bc->bhw", features, weights).unsqueeze(1)


def grad_cam(features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """
    Return the positive part of the features weighted by their mean gradient (Selvaraju et al., 2017, arXiv:1610.02391).

    Args:
        features: of any layer, shape ``(B, C, H, W)``.
        gradients: of the logit with respect to them, same shape.

    Returns:
        maps of shape ``(B, 1, H, W)``, not negative.
    """
    return class_activation_map(features, gradients.mean(dim=(2, 3))).relu()


def grad_cam_plus_plus(features: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """
    Return Grad-CAM++ maps, whose channel weights favor places where the gradient is positive.

    Chattopadhay et al., 2018 (arXiv:1710.11063, Eq. 10-11, 19): with ``g = dS/dA`` and
    ``a = g^2 / (2 g^2 + g^3 sum(A))``, the weight of a channel is ``sum(a relu(g))``. The paper's factor ``exp(S)`` is
    the same for all places of an image and overflows, so it is left out. MONAI's ``GradCAMpp`` mixes the images of a
    batch and takes ``sum(A g^3)`` in place of ``g^3 sum(A)``.

    Args:
        features: of any layer, shape ``(B, C, H, W)``.
        gradients: of the logit with respect to them, same shape.

    Returns:
        maps of shape ``(B, 1, H, W)``, float32 or float64, not negative.
    """
    wide = torch.promote_types(features.dtype, torch.float32)  # the cube of a half-precision gradient has few digits
    features, gradients = features.to(wide), gradients.to(wide)
    # a does not change when g is scaled and A is scaled inversely; without a scale, small gradients vanish when cubed
    scale = gradients.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-30)
    g = gradients / scale
    denominator = 2 * g**2 + g**3 * (features.sum(dim=(2, 3), keepdim=True) * scale)
    share = torch.where(denominator == 0, 0.0, g**2 / torch.where(denominator == 0, 1.0, denominator))
    return class_activation_map(features, (share * gradients.relu()).sum(dim=(2, 3))).relu()
