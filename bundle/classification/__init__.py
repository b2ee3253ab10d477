# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What it is: findings by name, with networks, losses, explanation, calibration and metrics."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    attention_lite=["AttentionLite0"],
    attention_maps=["AttentionMaps"],
    calibration=["at_operating_point", "read_classifier_calibration", "write_classifier_calibration"],
    class_heatmaps=["ClassHeatmaps"],
    evaluation=["ClassifierCalibrator", "ClassifierMetrics"],
    explainer=["ClassExplainer"],
    explanation_check=["randomization_check"],
    loss=["ClassificationLoss"],
    make=["make_classifier"],
    metrics=["compute_classification_metrics"],
    mixup=["MixUp"],
    recalibration=["ClassifierRecalibration"],
    scoring=["ClassScoresd"],
    sna_densenet=["SNADenseNet"],
    sna_resnet=["SNAResNet"],
)
NETWORKS = (
    "AttentionLite0",
    "SNADenseNet",
    "SNAResNet",
)  # that a model folder may name
