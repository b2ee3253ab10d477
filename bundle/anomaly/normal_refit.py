# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Fit a detector to all normals, and calibrate it on scores that no image had a part in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine
from monai.data import decollate_batch

from bundle.anomaly.calibration import heat_of_normal, write_calibration
from bundle.anomaly.normals import Normals
from bundle.training.checkpoint import save_atomically

__all__ = ["NormalRefit"]

logger = logging.getLogger(__name__)


class NormalRefit:
    """
    Estimate all that takes no gradient from all normals, and calibrate by cross-fitting.

    This is the whole training of PaDiM and the patch memory. ADFA's training holds normals back to choose its step.
    Neither its whitening nor its centers have a gradient, so once the step is chosen both are estimated again from all
    normals: a third more images where there are few.

    No normal is left then to calibrate on, so each fold is scored by what was fitted to the other folds, and these
    scores of all normals are the calibration. The false-alarm rate is then approximate: a new image is scored by the
    network of all normals, where cross-conformal prediction (Vovk, 2015) would score it by that of every fold, and
    ADFA's projection behind the whitening has been trained on most of these images.

    Args:
        network: un-wrapped :py:class:`bundle.anomaly.detector.Detector` with the weights to start from.
        data_loader: batches of all normals: ``image`` ``(B, C, H, W)`` and ``fold`` ``(B,)``, see
            :py:func:`bundle.lists.with_folds`.
        score: post-processing of an item with ``image`` and ``pred`` that adds ``anomaly_score`` and ``heatmap``.
        checkpoint: file for the weights, complete or absent.
        calibration: file for the calibration.
        false_alarm_rate: wanted share of false alarms among normal images, in (0, 1).
        shrinkage: of ADFA's fit, see :py:meth:`bundle.anomaly.ADFA.fit`.
        within_positions: see there.
        refit: ``False`` leaves a trained network as it is and runs ``otherwise``; one without a gradient is fitted in
            any case.
        otherwise: evaluator that calibrates on the held-back normals alone.
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
        refit: bool = True,
        otherwise: Engine | None = None,
    ) -> None:
        self.refit, self.otherwise = refit, otherwise
        self.network, self.data_loader, self.score = network, data_loader, score
        self.checkpoint, self.calibration, self.rate = checkpoint, calibration, false_alarm_rate
        self.settings = {"shrinkage": shrinkage, "within_positions": within_positions}

    def __call__(self) -> None:
        """Write both files, of a refit or without one."""
        trained = any(parameter.requires_grad for parameter in self.network.parameters())
        if self.otherwise is not None and trained and not self.refit:
            self.otherwise.run()
        else:
            self.fit_all()

    @idist.one_rank_only(with_barrier=True)
    @torch.no_grad()
    def fit_all(self) -> None:
        """Cross-fit for the calibration, fit to all normals, and write both files."""
        self.network.eval()
        normals = Normals(self.data_loader, next(self.network.parameters()).device)
        folds = normals.folds()
        parts: dict[int, torch.Tensor] = {}
        for number, fold in enumerate(sorted(folds)):
            logger.info("cross-fitting: fold %d of %d, %d normals", number + 1, len(folds), folds[fold])
            self.network.fit(normals.without(fold), **self.settings)
            parts[fold] = torch.cat([self.network.parts(image) for image in normals.of(fold)])
        self.network.fit_join(torch.cat([*parts.values()]))
        scores: list[float] = []
        heat: list[float] = []
        for fold, found in parts.items():
            for item in self.scored(normals.of(fold), self.network.join(found)):
                scores.append(float(item["anomaly_score"]))
                heat.append(heat_of_normal(item["heatmap"]))
        self.network.fit(normals, **self.settings)
        save_atomically(self.network.state_dict(), Path(self.checkpoint))
        saved = write_calibration(self.calibration, self.checkpoint, scores, float(np.median(heat)), self.rate)
        logger.info(
            "fitted to all %d normals; calibrated by cross-fitting in %d folds: threshold %s",
            folds.total(),
            len(folds),
            saved["threshold"],
        )

    def scored(self, images: Iterable[torch.Tensor], maps: torch.Tensor) -> Iterator[dict]:
        """Yield the scored images of batches, with their maps."""
        first = 0
        for image in images:
            yield from map(self.score, decollate_batch({"image": image, "pred": maps[first : first + len(image)]}))
            first += len(image)
