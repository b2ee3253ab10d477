# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The file that turns an anomaly score into a p-value and a verdict; it belongs to one file of weights."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events

from bundle.anomaly.conformal import conformal_threshold, promised_threshold
from bundle.files import atomic_path, file_sha256
from bundle.model.calibration_checks import check_anomaly_calibration, parse_calibration
from bundle.training.processes.reduction import gathered

__all__ = ["CalibrationWriter", "heat_of_normal", "read_calibration", "with_false_alarm_rate", "write_calibration"]

logger = logging.getLogger(__name__)


def heat_of_normal(heatmap: torch.Tensor) -> float:
    """Return the heat that nine tenths of a normal image's heatmap do not reach."""
    return float(torch.as_tensor(heatmap).flatten().quantile(0.9))


def write_calibration(
    path: str | Path, weights: str | Path, scores: Sequence[float], heat_low: float, false_alarm_rate: float
) -> dict[str, Any]:
    """
    Save the scores of held-back normal images and the threshold they give.

    Args:
        path: JSON file to write; it is complete or absent.
        weights: the checkpoint the scores were made with.
        scores: anomaly scores of normal images that the model was not fitted on.
        heat_low: heat that is usual in normal images, where pictures start to show it.
        false_alarm_rate: wanted share of false alarms among normal images, in (0, 1).

    Returns:
        what was written.

    Raises:
        ValueError: When there is no score, a score or the heat is not finite, or the rate is out of range.
    """
    threshold = conformal_threshold(torch.tensor(list(scores), dtype=torch.float64), false_alarm_rate)
    if math.isinf(threshold):
        logger.warning(
            "%d held-back normals cannot promise a false-alarm rate of %g (the least is %g): images get no "
            "verdict. Hold back more normals or accept a higher rate.",
            len(scores),
            false_alarm_rate,
            1 / (len(scores) + 1),
        )
    content = {
        "weights_sha256": file_sha256(weights),
        "false_alarm_rate": false_alarm_rate,
        "threshold": None if math.isinf(threshold) else threshold,
        "heat_low": heat_low,
        "scores": sorted(map(float, scores)),
    }
    check_anomaly_calibration(content, Path(path).name)
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2))
    return content


def read_calibration(path: str | Path, weights_sha256: str | None = None) -> dict[str, Any] | None:
    """
    Read a calibration, or return ``None`` with a warning where there is none.

    Args:
        path: JSON file of :py:func:`write_calibration`.
        weights_sha256: of the checkpoint in use; ``None`` skips the comparison.

    Returns:
        ``scores``, ``threshold`` (infinity where none can be promised), ``false_alarm_rate``, ``heat_low``.

    Raises:
        ValueError: When the file is malformed, a part of it is missing, not finite or out of range, or it belongs to
            other weights.
    """
    source = Path(path)
    if not source.is_file():
        logger.warning(
            "no calibration%s: scores come without p-values and verdicts", f" '{source.name}'" if source.name else ""
        )
        return None
    content = check_anomaly_calibration(parse_calibration(source.read_bytes(), source.name), source.name)
    if weights_sha256 not in (None, content["weights_sha256"]):
        raise ValueError(f"'{source.name}' belongs to other weights than those in use; calibrate again.")
    return content


def with_false_alarm_rate(content: Mapping[str, Any], false_alarm_rate: float) -> dict[str, Any]:
    """
    Return a calibration for another false-alarm rate, from the scores that it keeps.

    Args:
        content: what :py:func:`read_calibration` returned.
        false_alarm_rate: wanted share of false alarms among normal images, in (0, 1).

    Raises:
        ValueError: When the rate is out of range, or less than so many scores can promise.

    Example:
        >>> with_false_alarm_rate({"scores": [1.0, 2.0, 3.0]}, 0.5)
        {'scores': [1.0, 2.0, 3.0], 'false_alarm_rate': 0.5, 'threshold': 2.0}
    """
    threshold = promised_threshold(torch.tensor(content["scores"], dtype=torch.float64), false_alarm_rate)
    return {**content, "false_alarm_rate": float(false_alarm_rate), "threshold": threshold}


class CalibrationWriter:
    """
    Save the scores of the normal images of an evaluator, in all processes, as the calibration of a checkpoint.

    Args:
        path: file to write.
        weights: checkpoint that the evaluator runs with.
        false_alarm_rate: wanted share of false alarms among normal images, in (0, 1).
    """

    def __init__(self, path: str | Path, weights: str | Path, false_alarm_rate: float = 0.1) -> None:
        self.path, self.weights, self.rate = path, weights, false_alarm_rate
        self._scores: list[float] = []
        self._heat: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator with decollation and post-processing."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def __call__(self, engine: Engine) -> None:
        """Collect the normals of one batch."""
        pairs: Any = zip(engine.state.batch, engine.state.output, strict=True)  # type: ignore[call-overload]
        for batch, output in pairs:
            if not int(batch["label"]):
                self._scores.append(float(output["anomaly_score"]))
                self._heat.append(heat_of_normal(output["heatmap"]))

    def finish(self, engine: Engine) -> None:
        """Write the file, in the first process."""
        scores, heat = gathered(self._scores), gathered(self._heat)
        if idist.get_rank() > 0:
            return
        saved = write_calibration(self.path, self.weights, scores, float(np.median(heat)), self.rate)
        logger.info("calibrated on %d normals: threshold %s", len(scores), saved["threshold"])
