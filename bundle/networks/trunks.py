# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The trunks by name, with their weights, cut into stages."""

from __future__ import annotations

import itertools
import logging
from typing import Any, NamedTuple

from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from torch import nn

from bundle.networks.efficientnet_lite import EfficientNetLite0
from bundle.networks.pretrained import load_pretrained, weights_source

__all__ = ["BACKBONES", "TORCHVISION_LAYOUT", "TrunkStages", "WideBottleneck", "make_resnet", "trunk_stages"]

logger = logging.getLogger(__name__)


class WideBottleneck(ResNetBottleneck):
    """Bottleneck of Wide-ResNet50-2: twice the inner width of ResNet-50's. Arguments as in MONAI's block."""

    def __init__(self, in_planes: int, planes: int, spatial_dims: int = 2, stride: int = 1, **kwargs: Any) -> None:
        super().__init__(in_planes, planes, spatial_dims, stride, **kwargs)
        width = 2 * planes
        self.conv1 = nn.Conv2d(in_planes, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, planes * self.expansion, 1, bias=False)


_RESNETS: dict[str, tuple[type[ResNetBlock] | type[ResNetBottleneck], list[int]]] = {
    "resnet18": (ResNetBlock, [2, 2, 2, 2]),
    "resnet50": (ResNetBottleneck, [3, 4, 6, 3]),
    "wide_resnet50_2": (WideBottleneck, [3, 4, 6, 3]),
}
# arguments of MONAI's ResNet that give torchvision's layout and parameter names
TORCHVISION_LAYOUT: dict[str, Any] = {
    "block_inplanes": [64, 128, 256, 512],
    "spatial_dims": 2,
    "conv1_t_size": 7,
    "conv1_t_stride": 2,
    "bias_downsample": False,
}
BACKBONES = ("efficientnet_lite0", *_RESNETS)


def make_resnet(name: str, in_channels: int = 3, num_classes: int = 1000) -> ResNet:
    """
    Return MONAI's ResNet with torchvision's layout and parameter names.

    MONAI's own way to Wide-ResNet50-2 (bottlenecks of expansion 2) ties the stem's width to the first stage, 128
    channels where torchvision has 64, so its weights would not fit; :py:class:`WideBottleneck` keeps the stem.

    Args:
        name: ``resnet18``, ``resnet50`` or ``wide_resnet50_2``.
        in_channels: channels of the image.
        num_classes: outputs of the classification layer.

    Raises:
        ValueError: When ``name`` is unknown.
    """
    if name not in _RESNETS:
        raise ValueError(f"name must be one of {sorted(_RESNETS)}, got '{name}'.")
    block, layers = _RESNETS[name]
    return ResNet(
        block=block,
        layers=layers,
        n_input_channels=in_channels,
        num_classes=num_classes,
        **TORCHVISION_LAYOUT,
    )


class TrunkStages(NamedTuple):
    """
    The modules of a trunk, stage by stage, the stem with the first; whoever joins them names them.

    ``channels`` and ``strides`` are those of each stage's map; ``trunk`` is the whole network, where a head is wanted.
    """

    modules: list[list[nn.Module]]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    trunk: nn.Module

    def parts(self, *strides: int) -> list[list[nn.Module]]:
        """
        Return the modules between the last stages of some strides: to the first, on to the second, and so on.

        Args:
            strides: ascending, among those of the trunk.

        Example:
            >>> [len(part) for part in trunk_stages("resnet18", "random").parts(8, 16, 32)]
            [6, 1, 1]
        """
        ends = [0, *(len(self.strides) - self.strides[::-1].index(stride) for stride in strides)]
        return [list(itertools.chain(*self.modules[i:j])) for i, j in itertools.pairwise(ends)]

    def channels_at(self, *strides: int) -> tuple[int, ...]:
        """Return the channels of the last map of each stride."""
        last = dict(zip(self.strides, self.channels, strict=True))
        return tuple(last[stride] for stride in strides)


def trunk_stages(name: str, weights: str | None = "default", in_channels: int = 3, num_classes: int = 0) -> TrunkStages:
    """
    Return a trunk by name with its weights, in stages.

    Args:
        name: one of ``BACKBONES``.
        weights: see :py:func:`bundle.networks.pretrained.weights_source`; loaded by name, the log says what matched.
        in_channels: channels of the image.
        num_classes: outputs of EfficientNet-Lite0's head, of which nothing is made for 0; a ResNet's head is not used.

    Raises:
        ValueError: When ``name`` is unknown or the weights do not fit.
        FileNotFoundError: When the weights do not exist.

    Example:
        >>> stages = trunk_stages("efficientnet_lite0", "random")
        >>> stages.strides, stages.channels_at(8, 16)
        ((2, 4, 8, 16, 16, 32, 32), (40, 112))
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone must be one of {list(BACKBONES)}, got '{name}'.")
    lite = name == "efficientnet_lite0"
    trunk = EfficientNetLite0(in_channels, num_classes) if lite else make_resnet(name, in_channels)
    if (source := weights_source(weights, name)) is not None:
        rename = r"(?<![^.])_" if lite else None  # the file's names start with underscores
        logger.info("%s: %s", name, load_pretrained(trunk, source, rename=rename))
    if isinstance(trunk, EfficientNetLite0):
        ends = itertools.pairwise([0, *(end + 1 for end in trunk.stage_ends)])
        stages: list[list[nn.Module]] = [list(trunk.blocks[i:j]) for i, j in ends]
        stages[0] = [trunk.conv_stem, trunk.bn0, trunk.act, *stages[0]]
        return TrunkStages(stages, trunk.stage_channels, trunk.stage_strides, trunk)
    stages = [[trunk.conv1, trunk.bn1, trunk.act, trunk.maxpool, trunk.layer1]]
    stages += [[trunk.layer2], [trunk.layer3], [trunk.layer4]]
    channels = tuple(c * _RESNETS[name][0].expansion for c in TORCHVISION_LAYOUT["block_inplanes"])
    return TrunkStages(stages, channels, (4, 8, 16, 32), trunk)
