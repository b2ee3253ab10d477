# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Inferers: from a batch of images to network outputs."""

from bundle.inferers.anomaly_prior import AnomalyPrior
from bundle.inferers.attention_mining import AttentionMiningInferer
from bundle.inferers.class_explainer import ClassExplainer

__all__ = ["AnomalyPrior", "AttentionMiningInferer", "ClassExplainer"]
