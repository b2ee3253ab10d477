# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Make images abnormal, for training and validation without abnormal images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends

from bundle.anomaly.synthetic_anomalies import MADE_ABNORMAL_KINDS, make_abnormal

__all__ = ["MakeAbnormald", "RandMakeAbnormald"]


class MakeAbnormald(MapTransform):
    """
    Change the items that carry a seed of 0 or more, see :py:func:`bundle.lists.with_made_abnormal`.

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


class RandMakeAbnormald(RandomizableTransform, MapTransform):
    """
    Make some images abnormal, anew at every access, and say where.

    Args:
        keys: image, display values 0..1 before and after, shape ``(C, H, W)``.
        prob: share of images to change.
        region_key: item that receives 1 where the image was changed and 0 elsewhere, shape ``(1, H, W)``.
        kinds: of the changes, see :py:func:`bundle.anomaly.synthetic_anomalies.make_abnormal`.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        region_key: str = "label",
        kinds: Sequence[str] = MADE_ABNORMAL_KINDS,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.region_key, self.kinds = region_key, tuple(kinds)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with images changed, or not, and their regions."""
        d = dict(data)
        self.randomize(None)
        for key in self.key_iterator(d):
            image = d[key]
            region = torch.zeros(1, image.shape[-2], image.shape[-1])
            if self._do_transform:
                generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
                kind = self.kinds[int(self.R.randint(len(self.kinds)))]
                changed, mask = make_abnormal(torch.as_tensor(image).as_subclass(torch.Tensor), kind, generator)
                d[key] = MetaTensor(changed, meta=image.meta) if isinstance(image, MetaTensor) else changed
                region[0] = mask
            d[self.region_key] = region
        return d
