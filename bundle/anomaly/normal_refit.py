# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Give the held-back normals back to ADFA, and calibrate it on scores that no image had a part in."""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.data import decollate_batch
from monai.utils import CommonKeys

from bundle.anomaly.calibration import heat_of_normal, write_calibration
from bundle.anomaly.center_bank_updater import mean_embedding
from bundle.anomaly.descriptor_whitening import patch_statistics
from bundle.anomaly.patch_statistics import PatchStatistics
from bundle.training.checkpoint import save_atomically

__all__ = ["NormalRefit"]

logger = logging.getLogger(__name__)


class NormalRefit:
    """
    Estimate whitening and centers of a trained network from all normals, and calibrate it by cross-fitting.

    Training holds normals back to choose its step. Neither the whitening nor the centers have a gradient, so once the
    step is chosen both are estimated again from all normals: a third more images where there are few.

    No normal is left then to calibrate on, so each fold is scored by whitening and centers of the other folds, and
    these scores of all normals are the calibration. The false-alarm rate is then approximate: a new image is scored by
    the network of all normals, where cross-conformal prediction (Vovk, 2015) would score it by that of every fold, and
    the projection behind the whitening has been trained on most of these images.

    Args:
        network: un-wrapped :py:class:`bundle.anomaly.ADFA` with the weights to start from.
        data_loader: batches of all normals: ``image`` ``(B, C, H, W)`` and ``fold`` ``(B,)``, see
            :py:func:`bundle.lists.with_folds`.
        score: post-processing of an item with ``image`` and ``pred`` that adds ``anomaly_score`` and ``heatmap``.
        checkpoint: file for the weights, complete or absent.
        calibration: file for the calibration.
        false_alarm_rate: wanted share of false alarms among normal images, in (0, 1).
        shrinkage: see :py:func:`bundle.anomaly.whitening.whitening_matrix`.
        within_positions: see :py:meth:`bundle.anomaly.patch_statistics.PatchStatistics.covariance`.
    """

    def __init__(
        self,
        network: Any,
        data_loader: Iterable,
        score: Callable,
        checkpoint: str | Path,
        calibration: str | Path,
        false_alarm_rate: float = 0.1,
        shrinkage: float = 0.1,
        within_positions: bool = True,
    ) -> None:
        self.network, self.data_loader, self.score = network, data_loader, score
        self.checkpoint, self.calibration, self.rate = checkpoint, calibration, false_alarm_rate
        self.shrinkage, self.within_positions = shrinkage, within_positions

    @idist.one_rank_only(with_barrier=True)
    @torch.no_grad()
    def __call__(self) -> None:
        """Refit, and write both files."""
        self.network.eval()
        folds = patch_statistics(self.network, self.data_loader)
        everything = functools.reduce(operator.add, folds.values())
        scores: list[float] = []
        heat: list[float] = []
        for number, (fold, part) in enumerate(sorted(folds.items())):
            logger.info("cross-fitting: fold %d of %d, %d normals", number + 1, len(folds), part.count)
            self.fit(everything - part, without=fold)
            for item in self.scored(fold):
                scores.append(float(item["anomaly_score"]))
                heat.append(heat_of_normal(item["heatmap"]))
        self.fit(everything)
        save_atomically(self.network.state_dict(), Path(self.checkpoint))
        saved = write_calibration(self.calibration, self.checkpoint, scores, float(np.median(heat)), self.rate)
        logger.info(
            "whitening and centers of all %d normals; calibrated by cross-fitting in %d folds: threshold %s",
            everything.count,
            len(folds),
            saved["threshold"],
        )

    def fit(self, found: PatchStatistics, without: int = -1) -> None:
        """Estimate the whitening from moments, and the centers from the images outside a fold."""
        self.network.descriptor.whiten(found.mean(), found.covariance(self.within_positions), self.shrinkage)
        parts = (batch[CommonKeys.IMAGE][batch["fold"] != without] for batch in self.data_loader)
        centers = mean_embedding(self.network, (images for images in parts if len(images)), reduce=False)
        self.network.center_bank.set_centers(centers)

    def scored(self, fold: int) -> Iterable[dict]:
        """Yield the scored images of a fold."""
        device = next(self.network.parameters()).device
        for batch in self.data_loader:
            image = batch[CommonKeys.IMAGE][batch["fold"] == fold]
            if len(image):
                pred = self.network(image.to(device))
                yield from map(self.score, decollate_batch({"image": image, "pred": pred}))
