# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""ADFA: attention-augmented differentiable top-k feature adaptation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from bundle.anomaly.center_bank import CenterBank, mean_embedding
from bundle.anomaly.channel_attention import AdaptiveChannelAttention
from bundle.anomaly.normals import Normals
from bundle.anomaly.resizing import resized_map
from bundle.anomaly.stacked_maps import stacked_maps
from bundle.anomaly.whitening import whitening_matrix
from bundle.anomaly.whole_image import WholeImageDistance
from bundle.networks.arguments import keeps_arguments
from bundle.networks.backbone import FeatureBackbone
from bundle.rules import number_in

__all__ = ["ADFA", "PAPER_SETTING", "PatchDescriptor"]

# the network of the ADFA paper, where it is not that of the defaults
PAPER_SETTING: dict[str, Any] = {"descriptor_channels": None, "epsilon": 0.1, "map_stride": 4, "whole_weight": 0}


class PatchDescriptor(nn.Module):
    """
    Feature maps of several strides to one low-dimensional map of patch features (ADFA sections 2.1 and 2.2).

    The paper upsamples all maps to the largest, concatenates them with two coordinate channels in [-1, 1] and applies a
    1x1 convolution. Convolution and bilinear upsampling commute, so each map is projected at its own size and the
    results are upsampled and added: equal to rounding, at about a quarter of the arithmetic.

    The convolution starts at random, as in the paper, unless :py:meth:`start_whitened` gives it a start.

    Args:
        in_channels: channels of the maps, largest map first; their sum is ``D``.
        out_channels: feature size ``D'``; 0 is ``D``, ``None`` is the paper's ``(D + 2) // 4``.
        attention_weight: residual weight of the channel attention (Eq. 2); 0 switches it off.
        pool_size: odd side of an average pooling of each map before all else, as in the released code (which the paper
            does not mention); 1 leaves it out.
        stride: stride of the result in positions of the largest map; the paper's is 1.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int | None,
        attention_weight: float = 0.1,
        pool_size: int = 3,
        stride: int = 1,
    ) -> None:
        super().__init__()
        total = sum(in_channels) + 2
        self.stride, self.pool_size = stride, pool_size
        self.splits = [*in_channels, 2]  # the last two are the coordinates
        self.out_channels = total // 4 if out_channels is None else (out_channels or total - 2)
        self.register_buffer("feature_mean", torch.zeros(total - 2))
        self.register_buffer("feature_matrix", torch.eye(total - 2))  # the identity until it is whitened
        self.feature_mean: torch.Tensor
        self.feature_matrix: torch.Tensor
        self.pool = nn.AvgPool2d(pool_size, 1, pool_size // 2)
        self.projection = nn.Conv2d(total, self.out_channels, 1)
        self.attention = AdaptiveChannelAttention(self.out_channels, attention_weight)
        if attention_weight == 0:
            self.attention.requires_grad_(False)
        self._kept: Any = None

    @torch.no_grad()
    def whiten(self, mean: torch.Tensor, covariance: torch.Tensor, shrinkage: float = 0.1) -> None:
        """
        Put a fixed whitening of normal features in front of the projection, a departure from the paper.

        The whitening stays fixed and the projection after it learns: with one learning rate for all weights, a step on
        a projection of raw features, which are strongly correlated, is so much larger in some directions than in others
        that it destroys the start. It may be estimated again from more images afterwards: it is the one closest to
        plain standardization, so its directions keep their meaning to the projection.

        Args:
            mean: of the stacked normal features, shape ``(D,)``.
            covariance: of the same, shape ``(D, D)``.
            shrinkage: see :py:func:`bundle.anomaly.whitening.whitening_matrix`.
        """
        self.feature_mean.copy_(mean)
        self.feature_matrix.copy_(whitening_matrix(covariance, shrinkage))

    @torch.no_grad()
    def start_whitened(self, mean: torch.Tensor, covariance: torch.Tensor, shrinkage: float = 0.1) -> None:
        """
        Start from whitened normal features in place of the paper's random start.

        Fewer output than input channels take a random orthonormal part of the whitened features, scaled so that
        distances keep their size. The coordinates start without weight.

        Args:
            mean: see :py:meth:`whiten`, as the others.
            covariance: see there.
            shrinkage: see there.

        Raises:
            ValueError: When the descriptor is wider than ``D``.
        """
        channels, width = len(mean), self.out_channels
        if width > channels:
            raise ValueError(f"descriptor_channels must be at most {channels} to start whitened, got {width}.")
        self.whiten(mean, covariance, shrinkage)
        self.projection.weight.zero_()
        if width < channels:
            start = (channels / width) ** 0.5 * nn.init.orthogonal_(torch.empty(width, channels))
        else:
            start = torch.eye(channels)
        self.projection.weight[:, :channels, 0, 0] = start.to(self.projection.weight)
        bias = self.projection.bias
        assert bias is not None
        bias.zero_()

    def _feature_weight(self) -> torch.Tensor:
        """Return the projection behind the whitening as one matrix ``(D', D)`` of the features as they are."""
        if torch.jit.is_scripting():
            return self.projection.weight[:, :-2, 0, 0] @ self.feature_matrix
        return self._kept_feature_weight()

    @torch.jit.unused
    def _kept_feature_weight(self) -> torch.Tensor:
        # wide features make this product as expensive as an image, so inference keeps it until a factor changes
        weight, matrix = self.projection.weight, self.feature_matrix
        if torch.is_grad_enabled():
            self._kept = None  # fused optimizers change a weight and leave its version
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or weight.is_inference() or matrix.is_inference():
            return weight[:, :-2, 0, 0] @ matrix
        state = [(t.data_ptr(), t._version, t.dtype, t.device) for t in (weight, matrix)]
        if self._kept is None or self._kept[0] != state:
            with torch.autocast(weight.device.type, enabled=False):
                self._kept = (state, weight[:, :-2, 0, 0] @ matrix)
        return self._kept[1]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the kept product out of pickles and copies: their tensors live elsewhere."""
        return {**self.__dict__, "_kept": None}

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """
        Args:
            maps: feature maps ``(B, in_channels[i], H_i, W_i)``, the first of them the largest.

        Returns:
            patch features, shape ``(B, D', H_0 / stride, W_0 / stride)``.
        """
        h, w = maps[0].shape[-2] // self.stride, maps[0].shape[-1] // self.stride
        channels = self.feature_matrix.shape[0]
        weight = self._feature_weight()
        bias = self.projection.bias
        assert bias is not None
        rows = torch.linspace(-1, 1, h, device=maps[0].device, dtype=maps[0].dtype)
        columns = torch.linspace(-1, 1, w, device=maps[0].device, dtype=maps[0].dtype)
        grid = torch.stack([rows[:, None].expand(h, w), columns[None, :].expand(h, w)], dim=-1)  # (H, W, 2)
        grid = F.linear(grid, self.projection.weight[:, channels:, 0, 0], bias)
        x = grid.permute(2, 0, 1).unsqueeze(0)  # channels last in memory, as all that follows: a patch is a row
        means, parts = self.feature_mean.split(self.splits[:-1]), weight.split(self.splits[:-1], dim=1)
        for feature_map, mean, part in zip(maps, means, parts, strict=False):
            pooled = self.pool(feature_map)
            pooled = resized_map(pooled, [h, w]) if pooled.shape[-2] > h else pooled
            pooled = pooled - mean[:, None, None]  # in the bias it would cost the digits of features far from 0
            projected = F.linear(pooled.permute(0, 2, 3, 1), part).permute(0, 3, 1, 2)
            resized = resized_map(projected, [h, w])
            x = x.add_(resized) if x.shape == resized.shape else x + resized
        if torch.is_grad_enabled():
            return self.attention(x)
        return x.mul_(self.attention.factors(x))  # in place: fresh memory takes longer than the product


@keeps_arguments
class ADFA(nn.Module):
    """
    Map of distances to normal features (Huang et al., "ADFA: Attention-augmented differentiable top-k feature
    adaptation for unsupervised medical anomaly detection").

    The backbone is frozen; only the patch descriptor learns. The center bank must be filled, by
    :py:class:`bundle.anomaly.CenterBankUpdater` or a checkpoint, before a distance means anything.

    The defaults are those of ``configs/adfa.yaml``, and :py:meth:`paper` has those of the paper.

    Args:
        image_size: rows and columns of the images, multiples of 16.
        backbone: name of a backbone, see :py:class:`bundle.networks.FeatureBackbone`.
        weights: ``"default"``, a path, a URL, or ``None`` for a random start (an ablation, or because a
            checkpoint of the whole network follows).
        descriptor_channels: feature size ``D'``; 0 is ``D``, ``None`` is the paper's ``(D + 2) // 4``.
        attention_weight: residual weight of the channel attention (Eq. 2).
        pool_size: side of the average pooling of each feature map.
        k: how many nearest centers count.
        epsilon: regularization of SOFT top-k; 0 is the hard top-k.
        scale: divisor of the SOFT top-k cost, see :py:func:`bundle.anomaly.topk.distance.cost_scale`.
        map_stride: pixels of the image per position of the map, 8, or 4 (the paper) at sixteen times the distances.
        backbone_precision: of the backbone's convolutions, see :py:class:`bundle.networks.FeatureBackbone`; all
            else is float32.
        whole_weight: share of :py:class:`bundle.anomaly.whole_image.WholeImageDistance` in the map, in [0, 1); 0 is the
            paper's map and does without the deepest stage. It counts once :py:meth:`fit_join` has seen normal images.

    Raises:
        ValueError: When ``image_size`` is not a pair of multiples of 16, ``map_stride`` is not 4 or 8, or another
            argument is out of range.
    """

    BEFORE: ClassVar[dict[str, Any]] = {"whole_weight": 0.0}  # of a model from before there was the argument
    feature_layer, feature_map = "backbone", 2  # what kind of picture an image is, stride 16 says

    def __init__(
        self,
        image_size: Sequence[int] = (224, 224),
        backbone: str = "efficientnet_lite0",
        weights: str | None = "default",
        descriptor_channels: int | None = 0,
        attention_weight: float = 0.1,
        pool_size: int = 3,
        k: int = 3,
        epsilon: float = 0.0,
        scale: str = "row_mean",
        map_stride: int = 8,
        backbone_precision: str = "float32",
        whole_weight: float = 0.75,
    ) -> None:
        super().__init__()
        number_in("whole_weight", whole_weight, 0, 1, without_high=True)
        if map_stride not in (4, 8):
            raise ValueError(f"map_stride must be 4 or 8, got {map_stride}.")
        if len(image_size) != 2 or any(s < 16 or s % 16 for s in image_size):
            raise ValueError(f"image_size must be two multiples of 16, got {list(image_size)}.")
        self.backbone = FeatureBackbone(backbone, weights, backbone_precision, deepest=whole_weight > 0)
        self.descriptor = PatchDescriptor(
            self.backbone.channels[:3], descriptor_channels, attention_weight, pool_size, map_stride // 4
        )
        self.map_size = [image_size[0] // map_stride, image_size[1] // map_stride]
        self.center_bank = CenterBank(
            self.map_size[0] * self.map_size[1], self.descriptor.out_channels, k, epsilon, scale
        )
        self.whole: WholeImageDistance | None = None
        if whole_weight > 0:
            self.whole = WholeImageDistance(image_size, self.map_size, self.backbone.channels[3])
        self.whole_weight = float(whole_weight)

    @classmethod
    def paper(cls, **settings: Any) -> ADFA:
        """
        Return the network in the paper's setting, ``PAPER_SETTING``, as ``configs/adfa_paper.yaml`` makes it.

        Args:
            **settings: further arguments, which come before the paper's.

        Example:
            >>> network = ADFA.paper(image_size=(32, 32), weights=None)
            >>> network.map_size, network.descriptor.out_channels, network.center_bank.epsilon
            ([8, 8], 44, 0.1)
        """
        return cls(**{**PAPER_SETTING, **settings})

    def fit(self, normals: Normals, shrinkage: float = 0.1, within_positions: bool = True, **settings: Any) -> None:
        """
        Estimate the whitening and then the centers, and leave what was learned as it is.

        Args:
            normals: normal images, normalized as the backbone was trained.
            shrinkage: see :py:func:`bundle.anomaly.whitening.whitening_matrix`.
            within_positions: see :py:meth:`bundle.anomaly.patch_statistics.PatchStatistics.covariance`.
            **settings: of other methods' fits.
        """
        found = normals.moments(self.stacked_features)
        self.descriptor.whiten(found.mean(), found.covariance(within_positions), shrinkage)
        self.center_bank.set_centers(mean_embedding(self, normals, reduce=False))
        if self.whole is not None:
            self.whole.fit(torch.cat([self.whole.cells(self.backbone(images)[3]) for images in normals]), shrinkage)

    @torch.no_grad()
    def fit_join(self, parts: torch.Tensor) -> None:
        """
        Bring the distances of patches and of whole images to one unit.

        Args:
            parts: see :py:meth:`parts`, of normal images that this network, or one like it, was not fitted to.
        """
        if self.whole is not None:
            self.whole.fit_joint(parts[:, :1], parts[:, 1:], self.whole_weight)

    def describe(self, image: torch.Tensor) -> torch.Tensor:
        """Return patch features ``(B, N, D')`` of images ``(B, 3, H, W)``, in row order of the positions."""
        return self.describe_features(self.backbone(image))

    def stacked_features(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the descriptor projects but for the coordinates, ``(B, D, h, w)``, of images ``(B, 3, H, W)``."""
        return stacked_maps(self.backbone(image)[:3], self.map_size, self.descriptor.pool_size)

    def describe_features(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return patch features ``(B, N, D')`` of the backbone's feature maps."""
        return self.descriptor(maps[:3]).flatten(2).transpose(1, 2)

    def distance_map(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the map ``(B, 1, h, w)`` of soft top-k distances of patch features ``(B, N, D')``."""
        return self.center_bank(patches).view(patches.shape[0], 1, self.map_size[0], self.map_size[1])

    def parts(self, image: torch.Tensor) -> torch.Tensor:
        """
        Return the distances of patches, ``(B, 1, h, w)``, and with a ``whole_weight`` those of the whole image's cells
        beside them, ``(B, 2, h, w)``.

        Args:
            image: see :py:meth:`forward`.
        """
        maps = self.backbone(image)
        distances = self.distance_map(self.describe_features(maps))
        if self.whole is None:
            return distances
        return torch.cat([distances, self.whole(maps[3])], dim=1)

    def join(self, parts: torch.Tensor) -> torch.Tensor:
        """Return the map ``(B, 1, h, w)`` of both distances."""
        return parts if self.whole is None else self.whole.joined(parts[:, :1], parts[:, 1:])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: shape ``(B, 3, H, W)`` with the ``image_size`` given, normalized as the backbone was trained.

        Returns:
            soft top-k distances (Eq. 6 before the maximum), shape ``(B, 1, h, w)``, in feature units; with a
            ``whole_weight``, once :py:meth:`fit_join` has seen normal images, both distances in deviations of normal
            images, see :py:meth:`bundle.anomaly.whole_image.WholeImageDistance.joined`.
        """
        return self.join(self.parts(image))
