# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What is abnormal, learned from normal images alone: ADFA, its top-k, scores, calibration and metrics."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    adfa=["ADFA"],
    calibration=["CalibrationWriter", "at_false_alarm_rate", "read_calibration", "write_calibration"],
    center_bank=["CenterBank"],
    center_bank_updater=["CenterBankUpdater"],
    channel_attention=["AdaptiveChannelAttention"],
    descriptor_whitening=["DescriptorWhitening"],
    detector=["METHODS", "make_detector"],
    false_alarms=["observed_false_alarms", "share_interval"],
    feature_cache=["FeatureCache", "keep_features"],
    losses=["AdaptationLoss", "MeanDistanceLoss"],
    map_evaluation=["MapMetrics"],
    metrics=["bootstrap_interval", "compute_anomaly_metrics", "summarize_anomaly"],
    normals=["Normals", "folded_loader"],
    normal_refit=["NormalRefit"],
    padim=["PaDiM"],
    patch_memory=["PatchMemory"],
    recalibration=["AnomalyRecalibration"],
    scoring=["AnomalyScored", "AnomalyVerdictd", "anomaly_heatmap"],
    shift=["score_shift"],
    synthetic_anomaly_transforms=["RandSyntheticAnomalyd", "SyntheticAnomalyd", "with_synthetic_anomalies"],
)
NETWORKS = ("ADFA", "PaDiM", "PatchMemory")  # that a model folder may name
