# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The network that returns class logits and a box for every anchor of a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.apps.detection.networks.retinanet_network import RetinaNetClassificationHead, RetinaNetRegressionHead
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from torch import nn

from bundle.detection.grids import anchor_cells, decoded_boxes, grid_anchors
from bundle.networks.arguments import keeps_arguments
from bundle.networks.attention.make import make_attention
from bundle.networks.held_stages import HeldStages
from bundle.networks.plain import network_input
from bundle.networks.trunks import trunk_stages

__all__ = ["PyramidDetector"]

_BACKBONES = ("efficientnet_lite0", "resnet18", "resnet50")
_STAGES = ("shallow", "penultimate", "last", "pyramid", "attention", "class_head", "box_head")


@keeps_arguments
class PyramidDetector(HeldStages):
    """
    RetinaNet on one of our trunks (Lin et al., ICCV 2017, https://arxiv.org/abs/1708.02002), of MONAI's parts.

    The maps of strides 8, 16 and 32 go into a feature pyramid (Lin et al., CVPR 2017,
    https://arxiv.org/abs/1612.03144), a fourth of stride 64 is every second position of its last; an attention block
    follows on each; and two heads of four convolutions, the same for all, give every anchor its logits and its box.

    Departures: heads with group normalization (MONAI's), one anchor size a level, the fourth level without weights of
    its own, and no fifth.

    Args:
        num_classes: number of classes ``C``, one independent logit each.
        backbone: ``efficientnet_lite0``, ``resnet18`` or ``resnet50``.
        in_channels: channels of the image.
        weights: of the trunk, see :py:func:`bundle.networks.pretrained.weights_source`.
        pyramid_channels: of every map of the pyramid and of the heads, a multiple of 16; 256 in the papers.
        attention: a name of :py:data:`bundle.networks.attention.make.ATTENTION_NAMES`.
        image_size: rows and columns that ``aa`` and ``ppcr`` are made for.
        anchor_scale: side of a square anchor in strides of its level.
        anchor_ratios: height by width of the anchors at a position.
        frozen: stages among ``shallow`` (to stride 8), ``penultimate``, ``last``, ``pyramid``, ``attention``,
            ``class_head``, ``box_head`` that are held fixed, batch statistics included.
        fixed_statistics: batch statistics of the trunk stay as they are in training too, as detectors have it, whose
            batches are small.

    Raises:
        ValueError: When an argument is unknown or the weights do not fit.

    Example:
        >>> PyramidDetector(2, "resnet18", weights="random", pyramid_channels=16)(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 255, 6])
    """

    feature_layer = "penultimate"

    def __init__(
        self,
        num_classes: int,
        backbone: str = "efficientnet_lite0",
        in_channels: int = 3,
        weights: str | None = "default",
        pyramid_channels: int = 64,
        attention: str | None = "none",
        image_size: Sequence[int] = (320, 320),
        anchor_scale: float = 4.0,
        anchor_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        frozen: Sequence[str] = ("shallow",),
        fixed_statistics: bool = True,
    ) -> None:
        super().__init__()
        if backbone not in _BACKBONES:
            raise ValueError(f"backbone must be one of {list(_BACKBONES)}, got '{backbone}'.")
        if pyramid_channels < 16 or pyramid_channels % 16:
            raise ValueError(f"pyramid_channels must be a multiple of 16, got {pyramid_channels}.")
        if not anchor_scale > 0 or not anchor_ratios or any(not ratio > 0 for ratio in anchor_ratios):
            raise ValueError(f"anchors must have sides above 0, got scale {anchor_scale}, ratios {anchor_ratios}.")
        trunk = trunk_stages(backbone, weights, in_channels)
        self.shallow, self.penultimate, self.last = (
            part[0] if len(part) == 1 else nn.Sequential(*part) for part in trunk.parts(8, 16, 32)
        )
        self.strides = [8, 16, 32, 64]
        channels = list(trunk.channels_at(8, 16, 32))
        self.pyramid = FeaturePyramidNetwork(2, channels, pyramid_channels, LastLevelMaxPool(2))
        sizes = [(-(-image_size[0] // stride), -(-image_size[1] // stride)) for stride in self.strides]
        self.attention = nn.ModuleList(make_attention(attention, pyramid_channels, size) for size in sizes)
        self.num_classes, self.num_anchors = num_classes, len(anchor_ratios)
        self.class_head = RetinaNetClassificationHead(pyramid_channels, self.num_anchors, num_classes, 2)
        self.box_head = RetinaNetRegressionHead(pyramid_channels, self.num_anchors, 2)
        self.register_buffer("cells", anchor_cells(self.strides, anchor_scale, anchor_ratios), persistent=False)
        self.cells: torch.Tensor
        self.hold(frozen, _STAGES, fixed_statistics)

    def anchors(self, height: int, width: int) -> torch.Tensor:
        """Return the anchors of an image of that size as edges in pixels, shape ``(N, 4)``."""
        return grid_anchors(self.cells, self.strides, height, width)

    def positions(self, height: int, width: int) -> list[int]:
        """Return how many positions each level has; at each are ``num_anchors`` anchors."""
        return [-(-height // s) * -(-width // s) for s in self.strides]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: images, shape ``(B, in_channels, H, W)``, with ImageNet's mean and deviation for a pretrained trunk.

        Returns:
            for each anchor the logits of its classes, and left, upper, right, lower edge of its box in pixels of the
            image, not clipped to it, shape ``(B, N, C + 4)``, float32 at least.
        """
        shallow = self.shallow(network_input(x, self.class_head.cls_logits.weight))
        penultimate = self.penultimate(shallow)
        found = self.pyramid({"8": shallow, "16": penultimate, "32": self.last(penultimate)})
        maps: list[torch.Tensor] = []
        levels = list(found.values())
        for i, block in enumerate(self.attention):
            maps.append(block(levels[i]))
        logits = self._by_anchor(self.class_head(maps), self.num_classes)
        steps = self._by_anchor(self.box_head(maps), 4)
        anchors = grid_anchors(self.cells, self.strides, x.shape[-2], x.shape[-1])
        return torch.cat([logits, decoded_boxes(steps, anchors)], dim=-1)

    def _by_anchor(self, maps: list[torch.Tensor], values: int) -> torch.Tensor:
        """Turn maps of ``A * values`` channels into rows, one an anchor, in the order of :py:meth:`anchors`."""
        rows: list[torch.Tensor] = []
        for level in maps:
            batch, _, height, width = level.shape
            split = level.reshape(batch, self.num_anchors, values, height, width).permute(0, 3, 4, 1, 2)
            rows.append(split.reshape(batch, height * width * self.num_anchors, values))
        joined = torch.cat(rows, dim=1)
        return joined.float() if joined.dtype in (torch.float16, torch.bfloat16) else joined
