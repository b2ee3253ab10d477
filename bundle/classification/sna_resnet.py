# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""ResNet classifiers with an attention block by name."""

from __future__ import annotations

import logging
from typing import Any

import torch
from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from torch import nn

from bundle.networks.arguments import keeps_arguments
from bundle.networks.attention.make import AttentionPlacement, make_attention
from bundle.networks.plain import network_input
from bundle.networks.pretrained import load_pretrained, weights_source
from bundle.networks.trunks import TORCHVISION_LAYOUT

__all__ = ["SNAResNet"]

logger = logging.getLogger(__name__)


class _AttentionBlock(ResNetBlock):
    """MONAI's basic block with a place for attention on the residual branch. Arguments as in MONAI's block."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attention: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        y = self.attention(self.bn2(self.conv2(y)))
        return self.act(y + (x if self.downsample is None else self.downsample(x)))


class _AttentionBottleneck(ResNetBottleneck):
    """MONAI's bottleneck with a place for attention on the residual branch. Arguments as in MONAI's block."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attention: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.bn1(self.conv1(x)))
        y = self.act(self.bn2(self.conv2(y)))
        y = self.attention(self.bn3(self.conv3(y)))
        return self.act(y + (x if self.downsample is None else self.downsample(x)))


_LAYERS: dict[int, tuple[type[ResNetBlock] | type[ResNetBottleneck], list[int]]] = {
    18: (_AttentionBlock, [2, 2, 2, 2]),
    50: (_AttentionBottleneck, [3, 4, 6, 3]),
}


@keeps_arguments
class SNAResNet(ResNet):
    """
    ResNet-18 or -50 with spectral norm attention (Fang et al., 2022, https://doi.org/10.1016/j.neucom.2022.09.008) or
    another block by name.

    The layout and the parameter names are torchvision's, with or without a block, so its ImageNet weights load.

    Args:
        num_classes: number of logits.
        depth: 18 or 50.
        in_channels: channels of the image.
        image_size: height and width the position-dependent blocks (``aa``, ``ppcr``) are stored for, in pixels.
        attention: a name of ``ATTENTION_NAMES``; ``None`` is the network without attention.
        placement: ``"stem"`` after the first max-pooling, ``"blocks"`` on every residual branch, ``"both"``; by default
            ``"stem"`` for ``sna``, as in the paper, and ``"blocks"`` for the others. ``aa`` leaves stage 1 out (its
            position logits are quadratic in the positions).
        weights: path or URL of torchvision weights, ``"default"`` for torchvision's URL, ``"random"`` or ``None``
            for a random start.
        attention_options: further arguments of :py:func:`make_attention`, such as ``rank``.

    Raises:
        ValueError: When ``depth``, ``attention`` or ``placement`` is unknown.
    """

    cam_layer, classifier_layer, feature_layer = "layer4", "fc", "layer3"

    def __init__(
        self,
        num_classes: int,
        depth: int = 18,
        in_channels: int = 3,
        image_size: tuple[int, int] = (224, 224),
        attention: str | None = "sna",
        placement: str | None = None,
        weights: str | None = None,
        attention_options: dict[str, Any] | None = None,
    ) -> None:
        if depth not in _LAYERS:
            raise ValueError(f"depth must be one of {list(_LAYERS)}, got {depth}.")
        block, layers = _LAYERS[depth]
        super().__init__(
            block,
            layers,
            n_input_channels=in_channels,
            num_classes=num_classes,
            **TORCHVISION_LAYOUT,
        )
        where, options = AttentionPlacement.of(attention, placement), attention_options or {}
        height, width = (-(-s // 4) for s in image_size)
        stem = make_attention(attention if where.stem else None, 64, (height, width), **options)
        self.add_module("maxpool", nn.Sequential(self.maxpool, stem))  # pooling has no names that could change
        for i, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4)):
            channels = 64 * 2**i * block.expansion
            for child in layer if where.in_stage(i) else ():
                child.attention = make_attention(attention, channels, (height, width), **options)
            height, width = -(-height // 2), -(-width // 2)
        if (source := weights_source(weights, f"resnet{depth}")) is not None:
            logger.info("ResNet-%d: %s", depth, load_pretrained(self, source, ignore=r"^fc\.|attention|^maxpool\."))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: images, shape ``(B, in_channels, H, W)``.

        Returns:
            logits, shape ``(B, num_classes)``.
        """
        # MONAI's forward, which TorchScript cannot call by super()
        x = self.maxpool(self.act(self.bn1(self.conv1(network_input(x, self.conv1.weight)))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))  # type: ignore[misc]
