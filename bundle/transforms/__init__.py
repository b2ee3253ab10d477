# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Array transforms with dictionary wrappers."""

from bundle.transforms.anomaly import AnomalyScored, AnomalyVerdictd, anomaly_heatmap
from bundle.transforms.attention import AttentionResultd, MapLogitsd, StepMapsd
from bundle.transforms.class_scores import ClassScoresd
from bundle.transforms.display_facts import DisplayFactsd
from bundle.transforms.geometry import CropToRegiond, CropUniformBorderd, ResizeAndPadd
from bundle.transforms.made_abnormal import MakeAbnormald, RandMakeAbnormald
from bundle.transforms.picture import KeepPictured
from bundle.transforms.source_grid import ToSourceGridd

__all__ = [
    "AnomalyScored",
    "AnomalyVerdictd",
    "AttentionResultd",
    "ClassScoresd",
    "CropToRegiond",
    "CropUniformBorderd",
    "DisplayFactsd",
    "KeepPictured",
    "MakeAbnormald",
    "MapLogitsd",
    "RandMakeAbnormald",
    "ResizeAndPadd",
    "StepMapsd",
    "ToSourceGridd",
    "anomaly_heatmap",
]
