# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The network that returns class activation maps from the last one or two stages of an ImageNet network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from bundle.networks.arguments import keeps_arguments
from bundle.networks.held_stages import HeldStages
from bundle.networks.plain import network_input
from bundle.networks.trunks import trunk_stages

__all__ = ["MSA", "MultiScaleAggregation"]

_BACKBONES = ("efficientnet_lite0", "resnet18", "resnet50")
_STAGES = ("shallow", "penultimate", "last", "aggregation", "classifier")


class MultiScaleAggregation(nn.Module):
    """
    Join the last stage, reduced and enlarged by two, with the reduced stage before it.

    Sec. 2.3 of Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958).

    Args:
        penultimate_channels: channels of the stage before the last.
        last_channels: channels of the last stage.
        upsample: ``bilinear``, or ``deconv`` for a transposed 3x3 convolution of stride 2.

    Raises:
        ValueError: When ``upsample`` is unknown.
    """

    channels = 512 + 256

    def __init__(self, penultimate_channels: int, last_channels: int, upsample: str = "bilinear") -> None:
        super().__init__()
        if upsample not in ("bilinear", "deconv"):
            raise ValueError(f"upsample must be 'bilinear' or 'deconv', got '{upsample}'.")
        self.reduce_penultimate = nn.Conv2d(penultimate_channels, 256, 1)
        self.reduce_last = nn.Conv2d(last_channels, 512, 1)
        # after bilinear upsampling nothing is left to learn; the two commute with a 1x1 convolution
        self.enlarge = nn.ConvTranspose2d(512, 512, 3, 2, 1, 1) if upsample == "deconv" else nn.Identity()

    def forward(self, penultimate: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """
        Args:
            penultimate: shape ``(B, penultimate_channels, H, W)``.
            last: shape ``(B, last_channels, h, w)``, half of ``H, W`` rounded up, or equal to them.

        Returns:
            the aggregated features, shape ``(B, 768, H, W)``.
        """
        large = self.enlarge(self.reduce_last(last))
        size = [penultimate.shape[-2], penultimate.shape[-1]]
        if large.shape[-2] != size[0] or large.shape[-1] != size[1]:
            large = F.interpolate(large, size=size, mode="bilinear", align_corners=False)
        return torch.cat([large, self.reduce_penultimate(penultimate)], dim=1)


class _LastStage(nn.Module):
    """Stands where the aggregation stands and passes the last stage on: the plain class activation map."""

    def forward(self, penultimate: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        return last


@keeps_arguments
class MSA(HeldStages):
    """
    Class activation maps by multi-scale aggregation (Cai et al., MICCAI 2018, https://arxiv.org/abs/1807.00958).

    Three stages of a trunk, the aggregation of Sec. 2.3, and a 1x1 convolution to the maps. EfficientNet-Lite0, whose
    ImageNet weights come with a package, aggregates its last two taps (112 and 320 channels) as a ResNet its stages.

    Departure: the mean of a branch's map is its logit, without a bias, as Eq. 2 has none; the 1x1 convolutions of the
    aggregation have one.

    Args:
        num_classes: number of classes ``C``, one independent branch each.
        backbone: ``efficientnet_lite0``, ``resnet18`` or ``resnet50`` (the paper's).
        in_channels: channels of the image.
        weights: path or URL of a state dict, loaded by name; ``"default"`` for ImageNet weights (packaged for
            EfficientNet-Lite0, else a download); ``"random"`` or ``None`` for a random start.
        aggregate: ``False`` takes the maps from the last stage alone, the paper's baseline.
        upsample: ``bilinear`` or ``deconv``.
        atrous: last stage with stride 1 and dilation 2, the paper's future work; its maps need no enlarging then.
        frozen: stages among ``shallow`` (to stride 8), ``penultimate``, ``last``, ``aggregation``, ``classifier`` that
            are held fixed, batch statistics included.
        fixed_statistics: batch statistics stay as they are in training too: for small batches, and for mining, where
            the frozen copy keeps its own, and a network that does not is far from it before it has learnt anything.

    Raises:
        ValueError: When an argument is unknown or the weights do not fit.

    Example:
        >>> MSA(2, "resnet18", weights="random")(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 2, 4, 4])
    """

    feature_layer = "penultimate"

    def __init__(
        self,
        num_classes: int,
        backbone: str = "efficientnet_lite0",
        in_channels: int = 3,
        weights: str | None = "default",
        aggregate: bool = True,
        upsample: str = "bilinear",
        atrous: bool = False,
        frozen: Sequence[str] = (),
        fixed_statistics: bool = False,
    ) -> None:
        super().__init__()
        if backbone not in _BACKBONES:
            raise ValueError(f"backbone must be one of {list(_BACKBONES)}, got '{backbone}'.")
        trunk = trunk_stages(backbone, weights, in_channels)
        self.shallow, self.penultimate, self.last = (
            part[0] if len(part) == 1 else nn.Sequential(*part) for part in trunk.parts(8, 16, 32)
        )
        if atrous:
            _make_atrous(self.last)
        before_last, last = trunk.channels_at(16, 32)
        self.aggregation = MultiScaleAggregation(before_last, last, upsample) if aggregate else _LastStage()
        # no bias: an erased position has to count as 0, Eq. 2
        features = MultiScaleAggregation.channels if aggregate else last
        self.classifier = nn.Conv2d(features, num_classes, 1, bias=False)
        self.hold(frozen, _STAGES, fixed_statistics)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: images, shape ``(B, in_channels, H, W)``, with ImageNet's mean and deviation for a pretrained trunk.

        Returns:
            class activation maps in logit units, shape ``(B, C, H / 16, W / 16)`` rounded up, ``H / 32`` without the
            aggregation; the spatial mean of a map is the logit of its class.
        """
        penultimate = self.penultimate(self.shallow(network_input(x, self.classifier.weight)))
        return self.classifier(self.aggregation(penultimate, self.last(penultimate)))


def _make_atrous(stage: nn.Module) -> None:
    """Take the stride out of a stage and dilate what follows, so that every second position stays as it was."""
    for conv in stage.modules():
        if isinstance(conv, nn.Conv2d):
            if conv.stride == (2, 2):
                conv.stride = (1, 1)
            elif conv.kernel_size != (1, 1):
                conv.dilation = (2, 2)
                if conv.padding != (0, 0):  # "same" convolutions find theirs themselves
                    conv.padding = (conv.kernel_size[0] - 1, conv.kernel_size[1] - 1)
