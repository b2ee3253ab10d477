# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The network of a classifier by the name of its backbone."""

from __future__ import annotations

from typing import Any

from torch import nn

from bundle.classification.attention_lite import AttentionLite0
from bundle.classification.sna_densenet import SNADenseNet
from bundle.classification.sna_resnet import SNAResNet

__all__ = ["CLASSIFIER_BACKBONES", "make_classifier"]

_DEEP: dict[str, tuple[type[SNAResNet] | type[SNADenseNet], int]] = {
    "resnet18": (SNAResNet, 18),
    "resnet50": (SNAResNet, 50),
    "densenet121": (SNADenseNet, 121),
    "densenet169": (SNADenseNet, 169),
}
CLASSIFIER_BACKBONES = ("efficientnet_lite0", *_DEEP)


def make_classifier(
    num_classes: int,
    backbone: str = "efficientnet_lite0",
    image_size: tuple[int, int] = (224, 224),
    attention: str | None = "sna",
    placement: str | None = None,
    frozen_stages: int | None = None,
    weights: str | None = "default",
    attention_options: dict[str, Any] | None = None,
) -> nn.Module:
    """
    Return a classifier with an attention block on a backbone by name.

    Args:
        num_classes: number of logits.
        backbone: a name of ``CLASSIFIER_BACKBONES``.
        image_size: height and width the position-dependent blocks are stored for, in pixels.
        attention: a name of ``ATTENTION_NAMES``; ``None`` is the network without attention.
        placement: of the block in a ResNet or DenseNet, ``"stem"``, ``"blocks"`` or ``"both"``; ``None`` for the
            block's usual place. In EfficientNet-Lite0 it stands behind the frozen stages.
        frozen_stages: of EfficientNet-Lite0's seven, from 1 to 6; ``None`` for 5. The others are trained whole.
        weights: path or URL of a state dict, ``"default"`` for ImageNet's (those of a ResNet or DenseNet are a
            download), ``"random"`` or ``None`` for a random start.
        attention_options: further arguments of :py:func:`bundle.networks.attention.make.make_attention`.

    Returns:
        :py:class:`bundle.classification.AttentionLite0`, :py:class:`bundle.classification.SNAResNet` or
        :py:class:`bundle.classification.SNADenseNet`.

    Raises:
        ValueError: When a name is unknown, or an argument is one that the backbone has no use for.

    Example:
        >>> type(make_classifier(2, "densenet121", weights="random")).__name__
        'SNADenseNet'
    """
    if backbone not in CLASSIFIER_BACKBONES:
        raise ValueError(f"backbone must be one of {list(CLASSIFIER_BACKBONES)}, got '{backbone}'.")
    common: dict[str, Any] = {
        "image_size": image_size,
        "attention": attention,
        "weights": weights,
        "attention_options": attention_options,
    }
    if backbone == "efficientnet_lite0":
        if placement is not None:
            raise ValueError(f"placement must be null for {backbone}, whose block is behind the frozen stages.")
        return AttentionLite0(num_classes, frozen_stages=5 if frozen_stages is None else frozen_stages, **common)
    if frozen_stages is not None:
        raise ValueError(f"frozen_stages must be null for {backbone}, which is trained whole, got {frozen_stages}.")
    network, depth = _DEEP[backbone]
    return network(num_classes, depth, placement=placement, **common)
