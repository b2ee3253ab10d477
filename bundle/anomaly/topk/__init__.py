# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The differentiable top-k of distances: pure tensor maths, no modules."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    distance=["soft_topk_distance"],
    euclidean=["euclidean_distances", "squared_distances"],
    reference=["soft_topk_distance_reference", "soft_topk_reference"],
    weights=["soft_topk"],
)
