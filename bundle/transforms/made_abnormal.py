# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Make images abnormal, for validation without abnormal images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import TransformBackends

from bundle.data.made_abnormal import MADE_ABNORMAL_KINDS, make_abnormal

__all__ = ["MakeAbnormald"]


class MakeAbnormald(MapTransform):
    """
    Change the items that carry a seed of 0 or more, see :py:func:`bundle.data.with_made_abnormal`.

    The kind follows from the seed, so every kind occurs about equally often and a run repeats exactly.

    Args:
        keys: image, display values 0..1 before and after, shape ``(C, H, W)``.
        seed_key: item with the seed; negative leaves the image as it is.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection, seed_key: str = "made_abnormal_seed") -> None:
        super().__init__(keys)
        self.seed_key = seed_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with its images made abnormal where its seed says so."""
        d = dict(data)
        seed = int(d[self.seed_key])
        if seed >= 0:
            for key in self.key_iterator(d):
                kind = MADE_ABNORMAL_KINDS[seed % len(MADE_ABNORMAL_KINDS)]
                generator = torch.Generator().manual_seed(seed)
                changed, _ = make_abnormal(torch.as_tensor(d[key]).as_subclass(torch.Tensor), kind, generator)
                d[key] = d[key].clone()
                d[key].copy_(changed)
        return d
