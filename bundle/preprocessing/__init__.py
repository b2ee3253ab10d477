# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Crops, sizes and contrast, with the way back to the pixels of the file."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    adjustments=["make_adjustments"],
    fit=["fit_to_input"],
    geometry=["ResizeAndPadd"],
    picture=["KeepPictured"],
    source_grid=["ToSourceGridd"],
)
