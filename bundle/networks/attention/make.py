# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Attention blocks by name, so that a configuration can choose one with a word."""

from __future__ import annotations

from typing import NamedTuple

from monai.networks.blocks import ChannelSELayer
from torch import nn

from bundle.networks.attention.channel_gates import CBAM, SCSE, EfficientChannelAttention
from bundle.networks.attention.global_attention import AttentionAugmentation, NonLocal
from bundle.networks.attention.pixel_context import PyramidPixelContextRecalibration
from bundle.networks.attention.spectral_norm_attention import SpectralNormAttention

__all__ = ["ATTENTION_NAMES", "AttentionPlacement", "make_attention"]

ATTENTION_NAMES = ("none", "se", "eca", "cbam", "scse", "sa", "aa", "sna", "ppcr")


def make_attention(
    name: str | None,
    channels: int,
    size: tuple[int, int],
    rank: int = 1,
    combine: str = "multiply",
    preserve_mean: bool = True,
) -> nn.Module:
    """
    Return the attention block of that name; every block maps ``(B, C, H, W)`` to the same shape.

    Args:
        name: one of ``ATTENTION_NAMES``; ``None`` is ``"none"``.
        channels: number of channels ``C``.
        size: height and width of the feature map; only ``aa`` and ``ppcr`` depend on it, and they take others too.
        rank: of ``sna``, see :py:class:`SpectralNormAttention`.
        combine: of ``sna``.
        preserve_mean: of ``sna``.

    Raises:
        ValueError: When ``name`` is unknown.
    """
    match name:
        case None | "none":
            return nn.Identity()
        case "se":
            return ChannelSELayer(2, channels, r=16)  # MONAI's default of 2 is not the paper's
        case "eca":
            return EfficientChannelAttention(channels)
        case "cbam":
            return CBAM(channels)
        case "scse":
            return SCSE(channels, reduction=16)  # the paper's 2 would double ResNet-50; 16 makes it SE plus positions
        case "sa":
            return NonLocal(channels)
        case "aa":
            return AttentionAugmentation(channels, size)
        case "sna":
            return SpectralNormAttention(rank, combine, preserve_mean)
        case "ppcr":
            return PyramidPixelContextRecalibration(channels, size)
    raise ValueError(f"attention must be one of {list(ATTENTION_NAMES)}, got '{name}'.")


class AttentionPlacement(NamedTuple):
    """Where a network of four stages takes its attention: after the stem, inside the stages from ``first_stage``."""

    stem: bool
    blocks: bool
    first_stage: int

    @classmethod
    def of(cls, attention: str | None, placement: str | None) -> AttentionPlacement:
        """
        Return the usual place of a block, or the one asked for.

        Args:
            attention: a name of ``ATTENTION_NAMES`` or ``None``.
            placement: ``"stem"``, ``"blocks"`` or ``"both"``; ``None`` is ``"stem"`` for ``sna`` and ``"blocks"`` else.

        Raises:
            ValueError: When ``placement`` is unknown.
        """
        if placement is None:
            placement = "stem" if attention == "sna" else "blocks"
        if placement not in ("stem", "blocks", "both"):
            raise ValueError(f"placement must be 'stem', 'blocks' or 'both', got '{placement}'.")
        return cls(placement != "blocks", placement != "stem", 1 if attention == "aa" else 0)

    def in_stage(self, stage: int) -> bool:
        """Return whether the blocks of ``stage``, counted from 0, take attention."""
        return self.blocks and stage >= self.first_stage
