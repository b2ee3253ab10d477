# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What every family's training needs: checkpoints, log, averaging."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    auroc=["MeanAUROC", "auroc_metric", "patient_bootstrap"],
    checkpoint=["EpochSeeder", "TrainingCheckpoint", "save_weights"],
    handler_group=["HandlerGroup"],
    log=["LossCurves", "TrainingLog"],
    mean_loss=["MeanLoss"],
    pointing_game=["compute_pointing_game"],
    weight_averaging=["WeightAveraging"],
)
