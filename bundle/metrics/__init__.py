# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One compute function and one class a metric."""

from bundle.metrics.anomaly import bootstrap_interval, compute_anomaly_metrics, summarize_anomaly

__all__ = ["bootstrap_interval", "compute_anomaly_metrics", "summarize_anomaly"]
