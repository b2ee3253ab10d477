# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What a trained model says of itself (``model.json``), and how it is used."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    check=["check_model"],
    feature_cells=["FeatureCells"],
    content=["FORMAT_VERSION", "MODEL_FILE"],
    file=["ModelFile"],
    predict=["Model", "Predictions", "load_model"],
    read_file=["own_or_shipped", "read_model", "shipped_note"],
    save=["save_start", "save_trained"],
    start=["TrainingStart", "load_start"],
    training_set=["check_one_kind", "describe_training_set"],
    verdict_gate=["VerdictGated"],
    write_file=["write_model"],
)
