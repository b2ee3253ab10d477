# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""DenseNet classifiers with an attention block by name."""

from __future__ import annotations

import logging
from typing import Any

import torch
from monai.networks.nets.densenet import DenseNet
from torch import nn

from bundle.networks.arguments import keeps_arguments
from bundle.networks.attention.make import AttentionPlacement, make_attention
from bundle.networks.plain import network_input
from bundle.networks.pretrained import load_pretrained, weights_source

__all__ = ["SNADenseNet"]

logger = logging.getLogger(__name__)

_LAYERS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32)}
_GROWTH = 32


@keeps_arguments
class SNADenseNet(DenseNet):
    """
    DenseNet-121 or -169 with spectral norm attention (Fang et al., 2022, https://doi.org/10.1016/j.neucom.2022.09.008)
    or another block by name.

    The layout is torchvision's, with or without a block, so its ImageNet weights load.

    Args:
        num_classes: number of logits.
        depth: 121 or 169.
        in_channels: channels of the image.
        image_size: height and width the position-dependent blocks (``aa``, ``ppcr``) are stored for, in pixels.
        attention: a name of ``ATTENTION_NAMES``; ``None`` is the network without attention.
        placement: ``"stem"`` after the first max-pooling, ``"blocks"`` on the 32 new channels of every dense layer,
            ``"both"``; by default ``"stem"`` for ``sna``, as in the paper, and ``"blocks"`` for the others. ``aa``
            leaves stage 1 out (its position logits are quadratic in the positions).
        weights: path or URL of torchvision weights, ``"default"`` for torchvision's URL, ``"random"`` or ``None``
            for a random start.
        attention_options: further arguments of :py:func:`make_attention`, such as ``rank``.

    Raises:
        ValueError: When ``depth``, ``attention`` or ``placement`` is unknown.
    """

    cam_layer, classifier_layer = "class_layers.relu", "class_layers.out"
    feature_layer = "features.denseblock3"

    def __init__(
        self,
        num_classes: int,
        depth: int = 121,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        attention: str | None = "sna",
        placement: str | None = None,
        weights: str | None = None,
        attention_options: dict[str, Any] | None = None,
    ) -> None:
        if depth not in _LAYERS:
            raise ValueError(f"depth must be one of {list(_LAYERS)}, got {depth}.")
        super().__init__(2, in_channels, num_classes, growth_rate=_GROWTH, block_config=_LAYERS[depth])
        where, options = AttentionPlacement.of(attention, placement), attention_options or {}
        height, width = (-(-s // 4) for s in image_size)
        stem = make_attention(attention if where.stem else None, 64, (height, width), **options)
        self.features.pool0 = nn.Sequential(self.features.get_submodule("pool0"), stem)
        for i in range(4):
            for layer in getattr(self.features, f"denseblock{i + 1}") if where.in_stage(i) else ():
                layer.layers.add_module("attention", make_attention(attention, _GROWTH, (height, width), **options))
            height, width = height // 2, width // 2  # transitions pool without padding
        if (source := weights_source(weights, f"densenet{depth}")) is not None:
            # torchvision has neither MONAI's `layers` nor `class_layers` in its names
            report = load_pretrained(
                self,
                source,
                ignore=r"^(class_layers|classifier)\.|attention|pool0",
                rename=(r"(denselayer\d+)\.", r"\1.layers."),
            )
            logger.info("DenseNet-%d: %s", depth, report)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: images, shape ``(B, in_channels, H, W)``.

        Returns:
            logits, shape ``(B, num_classes)``.
        """
        weight = self.class_layers.out.weight  # type: ignore[union-attr]
        return self.class_layers(self.features(network_input(x, weight)))  # type: ignore[arg-type]
