# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One compute function and one class a metric."""

from bundle.metrics.anomaly import bootstrap_interval, compute_anomaly_metrics, summarize_anomaly
from bundle.metrics.classification import MeanAUROC, compute_classification_metrics
from bundle.metrics.explanation import randomization_check
from bundle.metrics.localization import summarize_localization

__all__ = [
    "MeanAUROC",
    "bootstrap_interval",
    "compute_anomaly_metrics",
    "compute_classification_metrics",
    "randomization_check",
    "summarize_anomaly",
    "summarize_localization",
]
