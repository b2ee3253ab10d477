# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Building blocks, one a file."""

from bundle.networks.blocks.adaptive_channel_attention import AdaptiveChannelAttention
from bundle.networks.blocks.attention import ATTENTION_NAMES, make_attention
from bundle.networks.blocks.backbone import FeatureBackbone
from bundle.networks.blocks.center_bank import CenterBank
from bundle.networks.blocks.efficientnet_lite import EfficientNetLite0
from bundle.networks.blocks.feature_cache import FeatureCache, keep_features
from bundle.networks.blocks.pixel_context import PyramidPixelContextRecalibration
from bundle.networks.blocks.pretrained import load_pretrained
from bundle.networks.blocks.spectral_norm_attention import SpectralNormAttention

__all__ = [
    "ATTENTION_NAMES",
    "AdaptiveChannelAttention",
    "CenterBank",
    "EfficientNetLite0",
    "FeatureBackbone",
    "FeatureCache",
    "PyramidPixelContextRecalibration",
    "SpectralNormAttention",
    "keep_features",
    "load_pretrained",
    "make_attention",
]
