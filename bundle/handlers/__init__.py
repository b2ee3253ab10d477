# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Ignite handlers: they attach and delegate."""

from bundle.handlers.attention_maps import AttentionMaps
from bundle.handlers.attention_mining import AttentionMiningHandler
from bundle.handlers.box_supervision import BoxSupervision
from bundle.handlers.center_bank import CenterBankUpdater
from bundle.handlers.class_heatmaps import ClassHeatmaps
from bundle.handlers.classifier_figures import ClassifierCalibrator, ClassifierFigures
from bundle.handlers.descriptor_whitening import DescriptorWhitening
from bundle.handlers.feature_cells import FeatureCells
from bundle.handlers.handler_group import HandlerGroup
from bundle.handlers.localization_figures import LocalizationFigures
from bundle.handlers.mean_loss import MeanLoss
from bundle.handlers.mixup import MixUp
from bundle.handlers.normal_refit import NormalRefit
from bundle.handlers.results import CalibrationWriter, ResultsHandler
from bundle.handlers.training_checkpoint import EpochSeeder, TrainingCheckpoint, save_weights
from bundle.handlers.training_log import TrainingLog
from bundle.handlers.weight_averaging import WeightAveraging

__all__ = [
    "AttentionMaps",
    "AttentionMiningHandler",
    "BoxSupervision",
    "CalibrationWriter",
    "CenterBankUpdater",
    "ClassHeatmaps",
    "ClassifierCalibrator",
    "ClassifierFigures",
    "DescriptorWhitening",
    "EpochSeeder",
    "FeatureCells",
    "HandlerGroup",
    "LocalizationFigures",
    "MeanLoss",
    "MixUp",
    "NormalRefit",
    "ResultsHandler",
    "TrainingCheckpoint",
    "TrainingLog",
    "WeightAveraging",
    "save_weights",
]
