# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Where it is, learned from image labels alone: MSA, attention mining, preservation, boxes and metrics."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    anchors=["box_from_anchors", "fit_anchors"],
    anomaly_prior=["AnomalyPrior"],
    box_supervision=["BoxAttentionLoss", "BoxSupervision"],
    erasure=["erased_logits"],
    evaluation=["LocalizationMetrics"],
    inferer=["AttentionMiningInferer"],
    metrics=["summarize_localization"],
    mined_batches=["MinedFirstBatchSampler"],
    mining=["AttentionMiningHandler"],
    msa=["MSA"],
    preservation=["KnowledgePreservationLoss"],
    scoring=["AttentionResultd", "MapLogitsd", "StepMapsd"],
)
NETWORKS = ("MSA",)  # that a model folder may name
