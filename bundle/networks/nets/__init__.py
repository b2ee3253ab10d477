# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Public networks, one a file."""

from bundle.networks.nets.adfa import ADFA
from bundle.networks.nets.attention_lite import AttentionLite0
from bundle.networks.nets.msa_resnet import EfficientNetLiteMSA, ResNetMSA, make_msa
from bundle.networks.nets.sna_densenet import SNADenseNet
from bundle.networks.nets.sna_resnet import SNAResNet

__all__ = ["ADFA", "AttentionLite0", "EfficientNetLiteMSA", "ResNetMSA", "SNADenseNet", "SNAResNet", "make_msa"]
