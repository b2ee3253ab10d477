# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Pure tensor maths: no modules, no MONAI, no input or output."""

from bundle.functional.distances import euclidean_distances, squared_distances
from bundle.functional.soft_topk import soft_topk
from bundle.functional.soft_topk_distance import soft_topk_distance

__all__ = ["euclidean_distances", "soft_topk", "soft_topk_distance", "squared_distances"]
