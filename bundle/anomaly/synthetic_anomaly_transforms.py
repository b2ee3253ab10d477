# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic anomalies in the images of a list, for training and validation without abnormal images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends

from bundle.anomaly.synthetic_anomalies import SYNTHETIC_ANOMALY_KINDS, synthetic_anomaly

__all__ = ["RandSyntheticAnomalyd", "SyntheticAnomalyd", "with_synthetic_anomalies"]


class SyntheticAnomalyd(MapTransform):
    """
    Change the items that carry a seed of 0 or more, see :py:func:`with_synthetic_anomalies`.

    The kind follows from the seed, so every kind occurs about equally often and a run repeats exactly.

    Args:
        keys: image, display values 0..1 before and after, shape ``(C, H, W)``.
        seed_key: item with the seed; negative leaves the image as it is.
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, keys: KeysCollection, seed_key: str = "synthetic_anomaly_seed") -> None:
        super().__init__(keys)
        self.seed_key = seed_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``data`` with an anomaly in its images where its seed says so."""
        d = dict(data)
        seed = int(d[self.seed_key])
        if seed >= 0:
            for key in self.key_iterator(d):
                kind = SYNTHETIC_ANOMALY_KINDS[seed % len(SYNTHETIC_ANOMALY_KINDS)]
                generator = torch.Generator().manual_seed(seed)
                changed, _ = synthetic_anomaly(torch.as_tensor(d[key]).as_subclass(torch.Tensor), kind, generator)
                d[key] = d[key].clone()
                d[key].copy_(changed)
        return d


class RandSyntheticAnomalyd(RandomizableTransform, MapTransform):
    """
    Put synthetic anomalies into some images, anew at every access, and say where.

    Args:
        keys: image, display values 0..1 before and after, shape ``(C, H, W)``.
        prob: share of images to change.
        region_key: item that receives 1 where the image was changed and 0 elsewhere, shape ``(1, H, W)``.
        kinds: of the changes, see :py:func:`bundle.anomaly.synthetic_anomalies.synthetic_anomaly`.
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.5,
        region_key: str = "label",
        kinds: Sequence[str] = SYNTHETIC_ANOMALY_KINDS,
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
                changed, mask = synthetic_anomaly(torch.as_tensor(image).as_subclass(torch.Tensor), kind, generator)
                d[key] = MetaTensor(changed, meta=image.meta) if isinstance(image, MetaTensor) else changed
                region[0] = mask
            d[self.region_key] = region
        return d


def with_synthetic_anomalies(items: Sequence[dict[str, Any]], copies: int = 5, seed: int = 0) -> list[dict[str, Any]]:
    """
    Return normal items and, beside each, some that :py:class:`SyntheticAnomalyd` changes.

    Args:
        items: normal items.
        copies: changed items per normal one; 5 gives each one of every kind.
        seed: of the changes; each item has its own.

    Returns:
        ``1 + copies`` times as many items; ``synthetic_anomaly_seed`` is -1 for the normal ones, and ``label`` is 1 for
        the others.
    """
    normal = [{**item, "synthetic_anomaly_seed": -1} for item in items]
    changed = [
        {
            **item,
            "label": 1,
            "key": f"{item['key']}_synthetic_anomaly_{copy}",
            "synthetic_anomaly_seed": seed * 1_000_003 + copies * i + copy,
        }
        for i, item in enumerate(items)
        for copy in range(copies)
    ]
    return normal + changed
