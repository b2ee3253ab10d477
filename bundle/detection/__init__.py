# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Where it is, learned from boxes: a feature pyramid detector, its loss, metrics and results."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    evaluation=["DetectionMetrics", "mean_ap_metric"],
    inferer=["PyramidInferer", "image_logits"],
    loss=["DetectionLoss"],
    precision=["summarize_detection"],
    pyramid_detector=["PyramidDetector"],
    scoring=["DetectionResultd"],
    targets=["BoxTargetsd", "known_items"],
)
NETWORKS = ("PyramidDetector",)  # that a model folder may name
