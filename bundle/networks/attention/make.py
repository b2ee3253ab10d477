# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Attention blocks by name, so that a configuration can choose one with a word."""

from __future__ import annotations

from typing import Any, NamedTuple

from monai.networks.blocks import ChannelSELayer
from torch import nn

from bundle.networks.attention.channel_gates import CBAM, SCSE, EfficientChannelAttention
from bundle.networks.attention.global_attention import AttentionAugmentation, NonLocal
from bundle.networks.attention.pixel_context import PyramidPixelContextRecalibration
from bundle.networks.attention.spectral_norm_attention import SpectralNormAttention
from bundle.rules import true_or_false, whole_number

__all__ = ["ATTENTION_NAMES", "ATTENTION_OPTIONS", "AttentionPlacement", "make_attention"]

# the arguments of each block, and what they are without a word
ATTENTION_OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "se": {"reduction": 16},  # MONAI's default of 2 is not the paper's
    "eca": {},
    "cbam": {"reduction": 16},
    "scse": {"reduction": 16},  # the paper's 2 would double ResNet-50; 16 makes it SE plus positions
    "sa": {},
    "aa": {"num_heads": 4},
    "sna": {"rank": 1, "combine": "multiply", "preserve_mean": True, "num_squarings": 8, "exact": False},
    "ppcr": {"groups": (1, 2, 4)},
}
ATTENTION_NAMES = tuple(ATTENTION_OPTIONS)


def make_attention(name: str | None, channels: int, size: tuple[int, int], **options: Any) -> nn.Module:
    """
    Return the attention block of that name; every block maps ``(B, C, H, W)`` to the same shape.

    Args:
        name: one of ``ATTENTION_NAMES``; ``None`` is no block, whatever the options.
        channels: number of channels ``C``.
        size: height and width of the feature map; only ``aa`` and ``ppcr`` depend on it, and they take others too.
        options: of the block, in place of those of ``ATTENTION_OPTIONS``: ``reduction`` of ``se``, ``cbam`` and
            ``scse``, the divisor of the channels between its two layers; ``num_heads`` of ``aa``; ``groups`` of
            ``ppcr``; those of ``sna`` are at :py:class:`SpectralNormAttention`.

    Raises:
        ValueError: When ``name`` is unknown, the block has no such option, or a value is out of range.

    Example:
        >>> make_attention("se", 64, (8, 8), reduction=4).fc[0].out_features
        16
    """
    if name is None:
        return nn.Identity()
    if name not in ATTENTION_OPTIONS:
        raise ValueError(f"attention must be one of {list(ATTENTION_NAMES)}, got '{name}'.")
    known = ATTENTION_OPTIONS[name]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"attention_options of {name} must be among {list(known)}, got '{unknown[0]}'.")
    chosen = {key: _checked(key, value) for key, value in {**known, **options}.items()}
    match name:
        case "se":
            return ChannelSELayer(2, channels, r=_divisor(chosen["reduction"], channels))
        case "eca":
            return EfficientChannelAttention(channels)
        case "cbam":
            return CBAM(channels, **chosen)
        case "scse":
            return SCSE(channels, _divisor(chosen["reduction"], channels))
        case "sa":
            return NonLocal(channels)
        case "aa":
            return AttentionAugmentation(channels, size, **chosen)
        case "sna":
            return SpectralNormAttention(**chosen)
        case "ppcr":
            return PyramidPixelContextRecalibration(channels, size, **chosen)
    return nn.Identity()


def _checked(name: str, value: Any) -> Any:
    """Return the value of an option, or refuse one of another kind."""
    if name in ("preserve_mean", "exact"):
        return true_or_false(name, value)
    if name == "groups":
        return tuple(whole_number(name, one) for one in (value if isinstance(value, list | tuple) else [value]))
    return value if name == "combine" else whole_number(name, value)


def _divisor(reduction: int, channels: int) -> int:
    """Return a reduction that leaves one channel or more."""
    if reduction > channels:
        raise ValueError(f"reduction must be at most the number of channels {channels}, got {reduction}.")
    return reduction


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
