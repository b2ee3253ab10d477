# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A new threshold for a trained model, from normal images of one's own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bundle.anomaly.calibration import at_false_alarm_rate, heat_of_normal, write_calibration
from bundle.anomaly.conformal import normals_needed
from bundle.lists.find import find_images
from bundle.lists.known_sets.layouts import not_normal_folders

__all__ = ["AnomalyRecalibration"]

DEFAULT_RATE = 0.1


class AnomalyRecalibration:
    """
    What :py:func:`bundle.model.recalibrate.recalibrate` asks of an anomaly detector, whose images are all normal.

    Args:
        score: post-processing that adds ``anomaly_score`` and ``heatmap`` to an item.
        calibration: that the model has; ``None`` for none.
    """

    wishes = ("false_alarm_rate",)
    labelled = False

    def __init__(
        self, score: Callable[[dict[str, Any]], dict[str, Any]], calibration: Mapping[str, Any] | None = None
    ) -> None:
        self.score, self.calibration = score, calibration

    def without_images(self, false_alarm_rate: float | None = None) -> dict[str, Any] | None:
        """Return the calibration for another rate."""
        return at_false_alarm_rate(self.calibration, false_alarm_rate)

    def items(self, folder: Path, labels_csv: Path | None, allow_outside: bool) -> tuple[list[dict], list]:
        """
        Return the images of a folder, and what is none with its reason.

        Raises:
            ValueError: When folders are named for what is not normal.
        """
        # the secret only groups the images of one patient within this list, it is never written;
        # the frames of a loop are much alike: all of them would promise what so many films promise
        found, refusals = find_images(folder, "middle", secrets.token_hex(16), allow_outside=allow_outside)
        if names := not_normal_folders(folder, found):
            raise ValueError(
                f"not all of '{folder.name}' can be taken for normal, it has folders named {', '.join(names[:5])}: "
                "give the folder of the normal images alone."
            )
        return found, [(str(refusal.source), refusal.reason) for refusal in refusals]

    def check_number(
        self, number: int, left_out: Sequence[tuple[str, str]], folder: Path, false_alarm_rate: float | None = None
    ) -> None:
        """
        Raises:
            ValueError: When there are too few images for the rate.
        """
        rate = self._rate(false_alarm_rate)
        needed = normals_needed(rate)
        if number < needed:
            first = f", first: {left_out[0][1].rstrip('.')}" if left_out else ""
            raise ValueError(
                f"false_alarm_rate {rate:g} needs at least {needed} normal images, '{folder.name}' has {number} "
                f"({len(left_out)} left out{first}); {number} can promise {1 / (number + 1):.3g}."
            )

    def numbers(self, item: dict[str, Any]) -> torch.Tensor:
        """Return the score of an item and the heat that is usual in it, shape ``(2,)``, float64."""
        item = self.score(item)
        return torch.tensor([float(item["anomaly_score"]), heat_of_normal(item["heatmap"])], dtype=torch.float64)

    def fit(
        self, numbers: torch.Tensor, items: Sequence[Mapping[str, Any]], false_alarm_rate: float | None = None
    ) -> dict[str, Any]:
        """Return a calibration from the ``(N, 2)`` numbers of the images."""
        scores, heat = numbers.T
        content = {"scores": scores.sort().values.tolist(), "heat_low": float(heat.quantile(0.5))}
        return at_false_alarm_rate(content, self._rate(false_alarm_rate)) or {}

    def write(self, path: Path, weights: Path, calibration: Mapping[str, Any]) -> None:
        """Save a calibration for weights."""
        scores, heat = calibration["scores"], calibration["heat_low"]
        write_calibration(path, weights, scores, heat, calibration["false_alarm_rate"])

    def lines(self, calibration: Mapping[str, Any]) -> list[str]:
        """Return what a person is shown of a calibration."""
        return [f"false_alarm_rate {calibration['false_alarm_rate']:g}: threshold {calibration['threshold']:.6g}"]

    def _rate(self, false_alarm_rate: float | None) -> float:
        return false_alarm_rate or (self.calibration or {}).get("false_alarm_rate", DEFAULT_RATE)
