# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""New temperature and operating points for a trained model of findings, from labelled images of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.utils import CommonKeys, convert_to_tensor

from bundle.classification.calibration import at_operating_point, write_classifier_calibration
from bundle.classification.operating_points import roc_points, thresholds_of
from bundle.classification.temperature import fit_temperature
from bundle.lists.table import load_label_table
from bundle.results.verdicts import findings_of

__all__ = ["ClassifierRecalibration", "class_calibration"]


class ClassifierRecalibration:
    """
    What :py:func:`bundle.model.recalibrate.recalibrate` asks of a model of findings, whose images are labelled.

    Args:
        classes: ``K`` names in the order of the logits.
        calibration: that the model has; ``None`` for none.
        normal_class: class that is no finding; empty or ``None`` for none.
        exclusive: exactly one class holds for an image.
        logits: makes logits ``(B, K)`` of the network's output; ``None`` takes the output as it is.
    """

    wishes = ("sensitivity", "specificity")
    labelled = True

    def __init__(
        self,
        classes: Sequence[str],
        calibration: Mapping[str, Any] | None = None,
        normal_class: str | None = None,
        exclusive: bool = False,
        logits: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.classes, self.calibration, self.normal_class = list(classes), calibration, normal_class
        self.exclusive, self.logits = exclusive, logits

    def without_images(
        self, sensitivity: float | None = None, specificity: float | None = None
    ) -> dict[str, Any] | None:
        """Return the calibration at other operating points."""
        return at_operating_point(self.calibration, self.classes, self.normal_class, sensitivity, specificity)

    def items(self, folder: Path, labels_csv: Path, allow_outside: bool) -> tuple[list[dict], list]:
        """
        Return the labelled images that are not of training.

        Raises:
            ValueError: When the table has none.
        """
        rows = load_label_table(labels_csv, folder, self.classes, exclusive=self.exclusive, allow_outside=allow_outside)
        kept = [row for row in rows if row["split"] != "training"]
        if not kept:
            raise ValueError(f"'{labels_csv.name}' must have rows of another split than training to calibrate on.")
        return [{name: row[name] for name in ("image", "key", "label")} for row in kept], []

    def check_number(self, number: int, left_out: Sequence[tuple[str, str]], folder: Path, **wishes: float) -> None:
        """
        Raises:
            ValueError: When no image is left; whether they are enough for a wish depends on their labels.
        """
        if not number:
            raise ValueError(f"none of {len(left_out)} images can be used, first: {left_out[0][1]}")

    def numbers(self, item: dict[str, Any]) -> torch.Tensor:
        """Return the logits of an item, shape ``(K,)``."""
        output = convert_to_tensor(item[CommonKeys.PRED]).cpu().float()
        return output if self.logits is None else self.logits(output[None])[0]

    def fit(
        self,
        numbers: torch.Tensor,
        items: Sequence[Mapping[str, Any]],
        sensitivity: float | None = None,
        specificity: float | None = None,
    ) -> dict[str, Any]:
        """Return a calibration from the ``(N, K)`` logits of the images."""
        targets = torch.tensor([item["label"] for item in items], dtype=torch.float32)
        names, wishes = [str(item["key"]) for item in items], (sensitivity, specificity, self.normal_class)
        return class_calibration(numbers, targets, self.classes, self.exclusive, *wishes, names)

    def write(self, path: Path, weights: Path, calibration: Mapping[str, Any]) -> None:
        """Save a calibration for weights."""
        write_classifier_calibration(
            path, weights, *(calibration[name] for name in ("temperature", "thresholds", "roc"))
        )

    def lines(self, calibration: Mapping[str, Any]) -> list[str]:
        """Return what a person is shown of a calibration."""
        points = {name: "none" if p is None else f"{p:.4g}" for name, p in calibration["thresholds"].items()}
        return [f"temperature {calibration['temperature']:.4g}", *(f"{name}: {p}" for name, p in points.items())]


def class_calibration(
    logits: torch.Tensor,
    targets: torch.Tensor,
    classes: Sequence[str],
    exclusive: bool,
    sensitivity: float | None = None,
    specificity: float | None = None,
    normal_class: str | None = None,
    images: Sequence[str] | None = None,
) -> dict[str, Any]:
    """
    Return temperature, operating points and curves of a classifier for labelled images.

    Args:
        logits: shape ``(N, K)``.
        targets: zeros and ones, shape ``(N, K)``.
        classes: ``K`` names.
        exclusive: exactly one class holds for an image.
        sensitivity: that each finding's operating point is to promise, in (0, 1).
        specificity: the same; one of them, or none for the largest sum of both.
        normal_class: class that is no finding, which gets the largest sum of both.
        images: names, for messages.

    Returns:
        ``temperature``, ``thresholds`` and ``roc`` by class, both ``None`` for a class without images of both kinds.

    Raises:
        ValueError: When no class has images with and without it, they are too few for what is wished for, or a logit
            is not finite.
    """
    temperature = fit_temperature(logits, targets, exclusive, images, classes)
    scaled = logits.double() / temperature
    p, truth = (scaled.softmax(dim=1) if exclusive else scaled.sigmoid()).numpy(), targets.numpy()
    curves = {name: roc_points(p[:, k], truth[:, k], most=None) for k, name in enumerate(classes)}
    if not any(curves.values()):
        raise ValueError(f"a class must have images with and without it, none of {', '.join(classes)} has both.")
    return {
        "temperature": temperature,
        "thresholds": thresholds_of(curves, sensitivity, specificity, findings_of(classes, normal_class)),
        "roc": {name: roc_points(p[:, k], truth[:, k]) for k, name in enumerate(classes)},
    }
