# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Attention blocks, one a file; each keeps the shape of its input."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    make=["ATTENTION_NAMES", "make_attention"],
    pixel_context=["PyramidPixelContextRecalibration"],
    spectral_norm_attention=["SpectralNormAttention"],
)
