# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""PaDiM: one Gaussian per position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from bundle.anomaly.one_part import OnePart
from bundle.anomaly.stacked_maps import stacked_maps
from bundle.networks.arguments import keeps_arguments
from bundle.networks.backbone import FeatureBackbone

__all__ = ["PaDiM"]


@keeps_arguments
class PaDiM(OnePart):
    """
    Mahalanobis distance of every patch to the Gaussian of its position (Defard et al., "PaDiM: a patch distribution
    modeling framework for anomaly detection and localization", 2021, https://arxiv.org/abs/2011.08785).

    Args:
        image_size: rows and columns of the images, multiples of 16.
        backbone: name of a backbone, see :py:class:`bundle.networks.backbone.FeatureBackbone`.
        weights: ``"default"``, a path, a URL, or ``None`` for a random start.
        backbone_precision: of the backbone's convolutions, see there.
        map_stride: pixels of the image per position of the map, 4 (the paper), 8 or 16.
        kept_channels: how many channels of the features are kept, drawn at random as in the paper; 0, or as many as
            there are, keeps all. Memory and file grow with its square.
        pool_size: side of the average over neighbors; 1, as in the paper, leaves it out.
        regularization: added to the diagonal of every covariance (the paper's 0.01), above 0.

    Raises:
        ValueError: When ``regularization`` is not above 0, or ``kept_channels`` below 0.
    """

    feature_layer = "backbone"

    def __init__(
        self,
        image_size: Sequence[int] = (224, 224),
        backbone: str = "efficientnet_lite0",
        weights: str | None = "default",
        backbone_precision: str = "float32",
        map_stride: int = 8,
        kept_channels: int = 200,
        pool_size: int = 1,
        regularization: float = 0.01,
    ) -> None:
        super().__init__()
        if not regularization > 0:
            raise ValueError(f"regularization must be above 0, got {regularization}.")
        if kept_channels < 0:
            raise ValueError(f"kept_channels must be at least 0, got {kept_channels}.")
        self.backbone = FeatureBackbone(backbone, weights, backbone_precision)
        self.map_size = [image_size[0] // map_stride, image_size[1] // map_stride]
        self.pool_size, self.regularization = pool_size, regularization
        positions, total = self.map_size[0] * self.map_size[1], sum(self.backbone.channels)
        channels = min(kept_channels or total, total)
        drawn = torch.randperm(total, generator=torch.Generator().manual_seed(0))[:channels]
        self.register_buffer("channels", drawn.sort().values)
        self.register_buffer("mean", torch.zeros(positions, channels))
        self.register_buffer(
            "whitening", torch.eye(channels).repeat(positions, 1, 1)
        )  # of the Cholesky factors' inverse
        self.channels: torch.Tensor
        self.mean: torch.Tensor
        self.whitening: torch.Tensor

    def features(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return patch features ``(N, B, D)``, positions first, of the backbone's maps."""
        stacked = stacked_maps(maps, self.map_size, self.pool_size)
        return stacked.index_select(1, self.channels).flatten(2).permute(2, 0, 1)

    @torch.no_grad()
    def fit(self, normals: Iterable[torch.Tensor], **settings: Any) -> None:
        """
        Estimate the Gaussians.

        Args:
            normals: images ``(B, 3, H, W)``, normalized as the backbone was trained; at least two images.
            **settings: of other methods' fits.

        Raises:
            ValueError: When there are fewer than two images.
        """
        self.fit_features(self.backbone(images.to(self.mean.device)) for images in normals)

    @torch.no_grad()
    def fit_features(self, batches: Iterable[list[torch.Tensor]]) -> None:
        """As :py:meth:`fit`, from batches of the backbone's maps."""
        count, shift = 0, None
        total, products = torch.zeros_like(self.mean), torch.zeros_like(self.whitening)
        for maps in batches:
            x = self.features(maps)
            shift = x.mean(dim=1, keepdim=True) if shift is None else shift  # keeps the sums of squares small
            x = x - shift
            total += x.sum(dim=1)
            products.baddbmm_(x.transpose(1, 2), x)
            count += x.shape[1]
        if count < 2 or shift is None:
            raise ValueError(f"PaDiM needs at least 2 normal images, got {count}.")
        mean = total / count
        self.mean.copy_(mean + shift[:, 0])
        covariance = products.baddbmm_(mean.unsqueeze(2), mean.unsqueeze(1), alpha=-count).div_(count - 1)
        covariance.diagonal(dim1=1, dim2=2).add_(self.regularization)
        identity = torch.eye(covariance.shape[-1], dtype=torch.float64, device=covariance.device)
        for whitening, of_position in zip(self.whitening, covariance, strict=True):  # one by one: all would take memory
            factor = torch.linalg.cholesky(of_position.double())
            whitening.copy_(torch.linalg.solve_triangular(factor, identity, upper=False))

    def distances(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return the map of distances ``(B, 1, h, w)`` of the backbone's maps."""
        x = (self.features(maps) - self.mean.unsqueeze(1)).transpose(1, 2)  # (N, D, B)
        z = self.whitening @ x
        return z.square().sum(dim=1).sqrt().T.reshape(-1, 1, self.map_size[0], self.map_size[1])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape ``(B, 3, H, W)`` with the ``image_size`` given, normalized as the backbone was trained.

        Returns:
            Mahalanobis distances, shape ``(B, 1, h, w)``.
        """
        return self.distances(self.backbone(image))
