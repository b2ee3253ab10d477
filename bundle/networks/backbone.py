# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Frozen ImageNet networks as feature taps at strides 4, 8 and 16, and 32 where it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from bundle.networks.plain import network_input
from bundle.networks.trunks import trunk_stages

__all__ = ["PRECISIONS", "FeatureBackbone", "KeptMaps"]

PRECISIONS = ("float32", "bfloat16", "auto")


class KeptMaps(Protocol):
    """What keeps the maps of images that come again, see :py:func:`bundle.anomaly.keep_features`."""

    def __call__(
        self, images: torch.Tensor, compute: Callable[[torch.Tensor], list[torch.Tensor]]
    ) -> list[torch.Tensor]:
        """Return the maps of the images, computed or kept."""


class FeatureBackbone(nn.Module):
    """
    Frozen feature maps at strides 4, 8 and 16 of a network trained on ImageNet.

    The parameters take no gradient and the module stays in evaluation mode, so batch statistics never move.

    Args:
        name: one of :py:data:`bundle.networks.trunks.BACKBONES`.
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
        if precision not in PRECISIONS:
            raise ValueError(f"backbone_precision must be one of {list(PRECISIONS)}, got '{precision}'.")
        self.name, self.precision = name, precision
        trunk = trunk_stages(name, weights)
        self.strides = (4, 8, 16, 32) if deepest else (4, 8, 16)
        self.channels = trunk.channels_at(*self.strides)
        self.stages = nn.ModuleList(nn.Sequential(*part) for part in trunk.parts(*self.strides))
        self.cache: KeptMaps | None = None  # see keep_features
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
        assert self.cache is not None
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
