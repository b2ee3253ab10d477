# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A memory of normal patches, a baseline for ADFA: distance to the nearest of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from bundle.anomaly.stacked_maps import stacked_maps
from bundle.anomaly.topk.distance import soft_topk_distance
from bundle.networks.backbone import FeatureBackbone

__all__ = ["PatchMemory"]


class PatchMemory(nn.Module):
    """
    Euclidean distance of every patch to the nearest stored normal patch (after Roth et al., PatchCore, 2022,
    https://arxiv.org/abs/2106.08265), with a random part of the patches instead of the greedy coreset.

    Args:
        num_patches: patches to store.
        image_size: rows and columns of the images, multiples of 16.
        backbone: name of a backbone, see :py:class:`bundle.networks.backbone.FeatureBackbone`.
        backbone_weights: ``"default"``, a path, a URL, or ``None`` for a random start.
        map_stride: pixels of the image per position of the map, 4, 8 or 16.
        pool_size: side of the average over neighbors; 1 leaves it out.
    """

    def __init__(
        self,
        num_patches: int,
        image_size: Sequence[int] = (224, 224),
        backbone: str = "efficientnet_lite0",
        backbone_weights: str | None = "default",
        map_stride: int = 8,
        pool_size: int = 3,
    ) -> None:
        super().__init__()
        self.backbone = FeatureBackbone(backbone, backbone_weights)
        self.map_size = [image_size[0] // map_stride, image_size[1] // map_stride]
        self.pool_size = pool_size
        self.register_buffer("patches", torch.zeros(num_patches, sum(self.backbone.channels)))
        self.patches: torch.Tensor

    def features(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return patch features ``(B, N, D)`` of the backbone's maps."""
        return stacked_maps(maps, self.map_size, self.pool_size).flatten(2).transpose(1, 2)

    @torch.no_grad()
    def fit(self, batches: Iterable[torch.Tensor], seed: int = 0) -> None:
        """
        Store a random part of the normal patches, drawn without replacement.

        Args:
            batches: normal images ``(B, 3, H, W)``, normalized as the backbone was trained.
            seed: of the draw.

        Raises:
            ValueError: When the images have fewer patches than ``num_patches``.
        """
        self.fit_features((self.backbone(images.to(self.patches.device)) for images in batches), seed)

    @torch.no_grad()
    def fit_features(self, batches: Iterable[list[torch.Tensor]], seed: int = 0) -> None:
        """As :py:meth:`fit`, from batches of the backbone's maps."""
        patches = torch.cat([self.features(maps).flatten(0, 1) for maps in batches])
        if len(patches) < len(self.patches):
            raise ValueError(
                f"num_patches must be at most {len(patches)}, the images' patches, got {len(self.patches)}."
            )
        order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(seed))
        self.patches.copy_(patches[order[: len(self.patches)].to(patches.device)])

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
