# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a trained model says of itself (``model.json``), and how it is used."""

from bundle.model.check import check_model
from bundle.model.file import FORMAT_VERSION, MODEL_FILE, ModelFile, read_model, write_model
from bundle.model.predict import Model, Predictions, load_model
from bundle.model.recalibrate import at_operating_point
from bundle.model.save import save_start, save_trained
from bundle.model.training_set import check_one_kind, describe_training_set
from bundle.model.verdict_gate import VerdictGated

__all__ = [
    "FORMAT_VERSION",
    "MODEL_FILE",
    "Model",
    "ModelFile",
    "Predictions",
    "VerdictGated",
    "at_operating_point",
    "check_model",
    "check_one_kind",
    "describe_training_set",
    "load_model",
    "read_model",
    "save_start",
    "save_trained",
    "write_model",
]
