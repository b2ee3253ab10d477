# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Ignite handlers: they attach and delegate."""

from bundle.handlers.center_bank import CenterBankUpdater
from bundle.handlers.handler_group import HandlerGroup
from bundle.handlers.results import CalibrationWriter, ResultsHandler
from bundle.handlers.training_checkpoint import EpochSeeder, TrainingCheckpoint
from bundle.handlers.training_log import TrainingLog

__all__ = [
    "CalibrationWriter",
    "CenterBankUpdater",
    "EpochSeeder",
    "HandlerGroup",
    "ResultsHandler",
    "TrainingCheckpoint",
    "TrainingLog",
]
