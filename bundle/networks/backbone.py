# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Frozen ImageNet networks as feature taps at strides 4, 8 and 16, and 32 where it is asked for."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import torch
from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from torch import nn

from bundle.networks.efficientnet_lite import EfficientNetLite0
from bundle.networks.plain import network_input
from bundle.networks.pretrained import load_pretrained, weights_source

__all__ = ["BACKBONES", "PRECISIONS", "TORCHVISION_LAYOUT", "FeatureBackbone", "WideBottleneck", "make_resnet"]

logger = logging.getLogger(__name__)


class WideBottleneck(ResNetBottleneck):
    """Bottleneck of Wide-ResNet50-2: twice the inner width of ResNet-50's. Arguments as in MONAI's block."""

    def __init__(self, in_planes: int, planes: int, spatial_dims: int = 2, stride: int = 1, **kwargs: Any) -> None:
        super().__init__(in_planes, planes, spatial_dims, stride, **kwargs)
        width = 2 * planes
        self.conv1 = nn.Conv2d(in_planes, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, planes * self.expansion, 1, bias=False)


_RESNETS: dict[str, tuple[type[ResNetBlock] | type[ResNetBottleneck], list[int]]] = {
    "resnet18": (ResNetBlock, [2, 2, 2, 2]),
    "resnet50": (ResNetBottleneck, [3, 4, 6, 3]),
    "wide_resnet50_2": (WideBottleneck, [3, 4, 6, 3]),
}
# arguments of MONAI's ResNet that give torchvision's layout and parameter names
TORCHVISION_LAYOUT: dict[str, Any] = {
    "block_inplanes": [64, 128, 256, 512],
    "spatial_dims": 2,
    "conv1_t_size": 7,
    "conv1_t_stride": 2,
    "bias_downsample": False,
}
BACKBONES = ("efficientnet_lite0", *_RESNETS)
PRECISIONS = ("float32", "bfloat16", "auto")


def make_resnet(name: str, in_channels: int = 3, num_classes: int = 1000) -> ResNet:
    """
    Return MONAI's ResNet with torchvision's layout and parameter names.

    MONAI's own way to Wide-ResNet50-2 (bottlenecks of expansion 2) ties the stem's width to the first stage, 128
    channels where torchvision has 64, so its weights would not fit; :py:class:`WideBottleneck` keeps the stem.

    Args:
        name: ``resnet18``, ``resnet50`` or ``wide_resnet50_2``.
        in_channels: channels of the image.
        num_classes: outputs of the classification layer.

    Raises:
        ValueError: When ``name`` is unknown.
    """
    if name not in _RESNETS:
        raise ValueError(f"name must be one of {sorted(_RESNETS)}, got '{name}'.")
    block, layers = _RESNETS[name]
    return ResNet(
        block=block,
        layers=layers,
        n_input_channels=in_channels,
        num_classes=num_classes,
        **TORCHVISION_LAYOUT,
    )


class FeatureBackbone(nn.Module):
    """
    Frozen feature maps at strides 4, 8 and 16 of a network trained on ImageNet.

    The parameters take no gradient and the module stays in evaluation mode, so batch statistics never move.

    Args:
        name: one of ``BACKBONES``.
        weights: path or URL of a torchvision-format state dict; ``"default"`` for the packaged weights of
            ``efficientnet_lite0`` and the official URL of the others; ``"random"`` for a random start (an ablation),
            as ``None``, which MONAI's command line cannot pass.
        precision: of the convolutions, one of ``PRECISIONS``; ``"auto"`` is bfloat16 where the processor multiplies in
            it (AVX-512 BF16, AMX, recent GPUs). The maps are float32 in any case, and so is all in TorchScript.
        deepest: one map more, of the last stage, at stride 32.

    Raises:
        ValueError: When ``name`` or ``precision`` is unknown or the weights do not fit.
        FileNotFoundError: When the weights do not exist.
    """

    def __init__(
        self,
        name: str = "efficientnet_lite0",
        weights: str | None = "default",
        precision: str = "float32",
        deepest: bool = False,
    ) -> None:
        super().__init__()
        if name not in BACKBONES:
            raise ValueError(f"backbone must be one of {list(BACKBONES)}, got '{name}'.")
        if precision not in PRECISIONS:
            raise ValueError(f"backbone_precision must be one of {list(PRECISIONS)}, got '{precision}'.")
        self.name, self.precision = name, precision
        if name == "efficientnet_lite0":
            trunk: EfficientNetLite0 | ResNet = EfficientNetLite0()
            rename: str | None = r"(?<![^.])_"  # the file's names start with underscores
            self.channels: tuple[int, ...] = (24, 40, 112, 320)
        else:
            trunk = make_resnet(name)
            rename = None
            self.channels = tuple(c * _RESNETS[name][0].expansion for c in (64, 128, 256, 512))
        if (source := weights_source(weights, name)) is not None:
            logger.info("%s: %s", name, load_pretrained(trunk, source, rename=rename))
        if isinstance(trunk, EfficientNetLite0):
            ends = [0] + [trunk.stage_ends[i] + 1 for i in (1, 2, 4, 6)]
            stages = [list(trunk.blocks[i:j]) for i, j in itertools.pairwise(ends)]
            stages[0] = [trunk.conv_stem, trunk.bn0, trunk.act, *stages[0]]
        else:
            stages = [[trunk.conv1, trunk.bn1, trunk.act, trunk.maxpool, trunk.layer1], [trunk.layer2], [trunk.layer3]]
            stages.append([trunk.layer4])
        taps = 4 if deepest else 3
        self.strides, self.channels = (4, 8, 16, 32)[:taps], self.channels[:taps]
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages[:taps])
        self.cache: Any = None  # see keep_features
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FeatureBackbone:
        """Stay in evaluation mode whatever ``mode`` says: the features are fixed."""
        return super().train(False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """
        Args:
            x: images, shape ``(B, 3, H, W)``, normalized as the backbone was trained (ImageNet mean and deviation), of
                any floating-point type; a subclass such as ``MetaTensor`` is taken for what it holds.

        Returns:
            maps of shape ``(B, channels[i], H / strides[i], W / strides[i])``.
        """
        if not torch.jit.is_scripting():
            if self.cache is not None:
                return self._cached(x)
        return self.compute(x)

    @torch.jit.unused
    def _cached(self, x: torch.Tensor) -> list[torch.Tensor]:
        return self.cache(network_input(x, self.stages[0][0].weight), self.compute)  # type: ignore[index]

    def compute(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps without a look into the cache."""
        x = network_input(x, self.stages[0][0].weight)  # type: ignore[index]
        if not torch.jit.is_scripting():
            if self.in_bfloat16(x.device):
                return self._compute_half(x)
        return self._maps(x)

    @torch.jit.unused
    def in_bfloat16(self, device: torch.device) -> bool:
        """Return whether the convolutions run in bfloat16 on this device."""
        return self.precision == "bfloat16" or (self.precision == "auto" and multiplies_bfloat16(device))

    @torch.jit.unused
    def _compute_half(self, x: torch.Tensor) -> list[torch.Tensor]:
        with torch.autocast(x.device.type, torch.bfloat16):
            return [m.float() for m in self._maps(x)]

    def _maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        x = x.contiguous(memory_format=torch.channels_last)  # never slower, and the maps' patches are then rows
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device has instructions for products in bfloat16, which then take half the time."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # since PyTorch 2.11
    return device.type == "cpu" and bool(found.get("avx512_bf16") or found.get("amx_bf16"))
