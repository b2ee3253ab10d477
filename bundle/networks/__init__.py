# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What the families build on: backbones, their weights, and exported files."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    backbone=["FeatureBackbone"],
    efficientnet_lite=["EfficientNetLite0"],
    exported=["network_to_run", "weights_sha256"],
    pretrained=["load_pretrained"],
)
