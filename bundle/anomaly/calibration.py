# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The file that turns an anomaly score into a p-value and a verdict; it belongs to one file of weights."""

from __future__ import annotations

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
from bundle.model.calibration_file import (
    check_order,
    checked_calibration,
    read_calibration_file,
    write_calibration_file,
)
from bundle.rules import is_number, number_in, shown
from bundle.training.processes.reduction import gathered

__all__ = [
    "CalibrationWriter",
    "at_false_alarm_rate",
    "check_calibration",
    "heat_of_normal",
    "read_calibration",
    "write_calibration",
]

logger = logging.getLogger(__name__)
_PARTS = ("false_alarm_rate", "threshold", "heat_low", "scores")


def heat_of_normal(heatmap: torch.Tensor) -> float:
    """Return the heat that nine tenths of a normal image's heatmap do not reach."""
    return float(torch.as_tensor(heatmap).flatten().quantile(0.9))


def check_calibration(content: Any, source: str) -> dict[str, Any]:
    """
    Return the calibration of an anomaly score, after checking every part of it.

    The threshold must be the one that the scores and the rate give, so a threshold that was changed by hand, or scores
    that were lost, are noticed.

    Args:
        content: of a file, or made by a program: ``weights_sha256``, ``scores``, ``threshold`` (``None`` where so few
            scores promise none), ``false_alarm_rate`` and ``heat_low``.
        source: name of the file, for messages.

    Returns:
        the same with ``threshold`` infinite in place of ``None``.

    Raises:
        ValueError: When a part is missing, of another type, not finite or out of range.
    """
    return checked_calibration(content, source, _PARTS, _checked)


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
    parts = {
        "false_alarm_rate": false_alarm_rate,
        "threshold": None if math.isinf(threshold) else threshold,
        "heat_low": heat_low,
        "scores": sorted(map(float, scores)),
    }
    return write_calibration_file(path, weights, parts, check_calibration)


def read_calibration(path: str | Path, weights_sha256: str | None = None) -> dict[str, Any] | None:
    """
    Read a calibration, or return ``None`` with a warning where there is none.

    Args:
        path: JSON file of :py:func:`write_calibration`.
        weights_sha256: of the checkpoint in use; ``None`` skips the comparison.

    Returns:
        ``weights_sha256``, ``scores``, ``threshold`` (infinity where none can be promised), ``false_alarm_rate``,
        ``heat_low``.

    Raises:
        ValueError: When the file is malformed, a part of it is missing, not finite or out of range, or it belongs to
            other weights.
    """
    without = "scores come without p-values and verdicts"
    return read_calibration_file(path, weights_sha256, check_calibration, without)


def at_false_alarm_rate(
    calibration: Mapping[str, Any] | None, false_alarm_rate: float | None = None
) -> dict[str, Any] | None:
    """
    Return a calibration for another false-alarm rate, from the scores that it keeps.

    Args:
        calibration: what :py:func:`read_calibration` returned.
        false_alarm_rate: wanted share of false alarms among normal images, in (0, 1); ``None`` for the calibration's.

    Raises:
        ValueError: When there is no calibration, the rate is out of range, or less than so many scores can promise.

    Example:
        >>> at_false_alarm_rate({"scores": [1.0, 2.0, 3.0]}, 0.5)
        {'scores': [1.0, 2.0, 3.0], 'false_alarm_rate': 0.5, 'threshold': 2.0}
    """
    if false_alarm_rate is None:
        return None if calibration is None else dict(calibration)
    if calibration is None:
        wish = f"false_alarm_rate {false_alarm_rate}"
        raise ValueError(f"{wish} needs a calibration to choose from, this model has none that applies.")
    threshold = promised_threshold(torch.tensor(calibration["scores"], dtype=torch.float64), false_alarm_rate)
    return {**calibration, "false_alarm_rate": float(false_alarm_rate), "threshold": threshold}


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


def _checked(content: Mapping[str, Any]) -> dict[str, Any]:
    rate = number_in("false_alarm_rate", content["false_alarm_rate"], 0, 1, without_low=True, without_high=True)
    number_in("heat_low", content["heat_low"], -math.inf)
    scores, threshold = check_order("scores", content["scores"]), content["threshold"]
    if threshold is not None and not is_number(threshold):
        raise ValueError(f"threshold must be a finite number or null, got {shown(threshold)}.")
    expected = conformal_threshold(torch.tensor(scores, dtype=torch.float64), rate)
    given = math.inf if threshold is None else float(threshold)
    if given != expected and not math.isclose(given, expected, rel_tol=1e-9):
        wanted = "null" if math.isinf(expected) else f"{expected:g}"
        raise ValueError(
            f"threshold must be {wanted}, which its {len(scores)} scores give for a false_alarm_rate of {rate:g}, "
            f"got {shown(threshold)}."
        )
    return {**{name: content[name] for name in _PARTS}, "threshold": given}
