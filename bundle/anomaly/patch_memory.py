# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A memory of normal patches: the distance to the nearest of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from bundle.anomaly.coreset import greedy_coreset
from bundle.anomaly.one_part import OnePart
from bundle.anomaly.stacked_maps import stacked_maps
from bundle.anomaly.topk.distance import soft_topk_distance
from bundle.networks.arguments import keeps_arguments
from bundle.networks.backbone import FeatureBackbone
from bundle.rules import whole_number

__all__ = ["PatchMemory"]


@keeps_arguments
class PatchMemory(OnePart):
    """
    Euclidean distance of every patch to the nearest stored normal patch (after PatchCore: Roth et al., "Towards total
    recall in industrial anomaly detection", 2022, https://arxiv.org/abs/2106.08265).

    The stored patches are a greedy coreset of a random part of all, where the paper takes it of all: that part grows
    with the memory and not with the number of images.

    Args:
        image_size: rows and columns of the images, multiples of 16.
        backbone: name of a backbone, see :py:class:`bundle.networks.backbone.FeatureBackbone`.
        weights: ``"default"``, a path, a URL, or ``None`` for a random start.
        backbone_precision: of the backbone's convolutions, see there.
        map_stride: pixels of the image per position of the map, 4, 8 (the paper) or 16.
        memory_size: patches to store, from 1. Where there are fewer, they are stored more than once.
        candidates: patches, drawn at random, from which each stored one is chosen; 1 leaves the choice to chance.
        pool_size: side of the average over neighbors, 3 as in the paper; 1 leaves it out.

    Raises:
        ValueError: When ``memory_size`` or ``candidates`` is below 1.
    """

    feature_layer = "backbone"

    def __init__(
        self,
        image_size: Sequence[int] = (224, 224),
        backbone: str = "efficientnet_lite0",
        weights: str | None = "default",
        backbone_precision: str = "float32",
        map_stride: int = 8,
        memory_size: int = 2000,
        candidates: int = 10,
        pool_size: int = 3,
    ) -> None:
        super().__init__()
        whole_number("memory_size", memory_size)
        self.candidates = whole_number("candidates", candidates)
        self.backbone = FeatureBackbone(backbone, weights, backbone_precision)
        self.map_size = [image_size[0] // map_stride, image_size[1] // map_stride]
        self.pool_size = pool_size
        self.register_buffer("patches", torch.zeros(memory_size, sum(self.backbone.channels)))
        self.patches: torch.Tensor

    def features(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return patch features ``(B, N, D)`` of the backbone's maps."""
        return stacked_maps(maps, self.map_size, self.pool_size).flatten(2).transpose(1, 2)

    @torch.no_grad()
    def fit(self, normals: Iterable[torch.Tensor], seed: int = 0, **settings: Any) -> None:
        """
        Store normal patches, none twice as long as there are enough.

        Args:
            normals: images ``(B, 3, H, W)``, normalized as the backbone was trained; at least one image.
            seed: of the draw and the coreset.
            **settings: of other methods' fits.

        Raises:
            ValueError: When there is no image.
        """
        self.fit_features((self.backbone(images.to(self.patches.device)) for images in normals), seed)

    @torch.no_grad()
    def fit_features(self, batches: Iterable[list[torch.Tensor]], seed: int = 0) -> None:
        """As :py:meth:`fit`, from batches of the backbone's maps."""
        generator = torch.Generator().manual_seed(seed)
        size, kept, numbers = len(self.patches), self.patches[:0], torch.zeros(0, dtype=torch.float64)
        most = size * self.candidates
        for maps in batches:  # every patch draws a number, and those with the smallest stay
            new = self.features(maps).flatten(0, 1)
            drawn = torch.rand(len(new), generator=generator, dtype=torch.float64)
            numbers, smallest = torch.cat([numbers, drawn]).sort()
            numbers, smallest = numbers[:most], smallest[:most].to(new.device)
            kept = torch.cat([kept, new])[smallest]
        if not len(kept):
            raise ValueError("PatchMemory needs at least 1 normal image, got none.")
        if len(kept) > size and self.candidates > 1:
            kept = kept[greedy_coreset(kept, size, generator)]
        self.patches.copy_(kept[torch.arange(size, device=kept.device) % len(kept)])

    def distances(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the map of distances ``(B, 1, h, w)`` of the backbone's maps."""
        nearest = soft_topk_distance(self.features(maps), self.patches, 1, 0.0)
        return nearest.view(-1, 1, self.map_size[0], self.map_size[1])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape ``(B, 3, H, W)`` with the ``image_size`` given, normalized as the backbone was trained.

        Returns:
            distances in feature units, shape ``(B, 1, h, w)``.
        """
        return self.distances(self.backbone(image))
