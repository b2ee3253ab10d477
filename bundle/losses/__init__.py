# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Losses, one a file; ``forward(input, target)`` so that stock trainers accept them."""

from bundle.losses.adaptation import AdaptationLoss
from bundle.losses.box_attention import BoxAttentionLoss
from bundle.losses.classification import ClassificationLoss
from bundle.losses.knowledge_preservation import KnowledgePreservationLoss
from bundle.losses.mean_distance import MeanDistanceLoss

__all__ = ["AdaptationLoss", "BoxAttentionLoss", "ClassificationLoss", "KnowledgePreservationLoss", "MeanDistanceLoss"]
