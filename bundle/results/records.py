# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The one object that every writer takes: what was found in one image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bundle import __version__

__all__ = ["NOTICE", "Algorithm", "Box", "ImageResult", "NotWrittenError"]

NOTICE = "Research use only. Not for diagnosis."


class NotWrittenError(ValueError):
    """A result that a format cannot carry: one line with the rule and the value, and no text from inside the source."""


@dataclass(frozen=True)
class Algorithm:
    """
    What made the results, as tables, report and DICOM objects state it.

    Args:
        name: of the model, e.g. ``"ADFA, EfficientNet-Lite0"``.
        version: of this package and, if it has one, of the model.
        weights_sha256: SHA-256 of the checkpoint file in hexadecimal, or ``None`` for a model without a file.
        parameters: settings that change the result, in words or numbers.
    """

    name: str = "unnamed model"
    version: str = __version__
    weights_sha256: str | None = None
    parameters: dict[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Box:
    """
    A finding's place in pixels of the source frame.

    Args:
        label: what was found.
        x: left edge, columns from the left border of the image, so 0.0 is the left edge of the first pixel.
        y: upper edge, rows from the upper border of the image.
        width: in columns, positive.
        height: in rows, positive.
        score: probability or mean heat inside, 0..1.
    """

    label: str
    x: float
    y: float
    width: float
    height: float
    score: float


@dataclass
class ImageResult:
    """
    Everything known about one image (one frame of a multi-frame file), in the pixel grid of the source frame.

    Args:
        key: name that is unique within a run, safe as a file name, and free of identity.
        source: the file the image came from.
        frame: index of the frame within the file, from 0.
        subject: pseudonym of the patient, or ``None`` where none is known.
        label: ground truth where known: 0 normal, 1 abnormal.
        label_scores: probability per finding, 0..1.
        anomaly_score: larger is more abnormal; no upper limit.
        p_value: conformal p-value of the anomaly score among normal images, (0, 1]; approximate after a refit.
        abnormal: verdict at the saved threshold, ``None`` without one.
        heatmap: float32, shape ``(rows, columns)`` of the source frame.
        boxes: findings with a place, best first.
        image: display values 0..1, or 0..255 as bytes, shape ``(rows, columns)`` or ``(rows, columns, 3)``.
        extra: further columns for the tables, plain numbers or words.
        spacing: millimetres per row and per column of the source frame, ``None`` or not-a-number where unknown.
        extra_maps: further maps by name, each like ``heatmap``; the report shows them side by side with it.
    """

    key: str
    source: Path
    frame: int = 0
    subject: str | None = None
    label: int | None = None
    label_scores: dict[str, float] = field(default_factory=dict)
    anomaly_score: float | None = None
    p_value: float | None = None
    abnormal: bool | None = None
    heatmap: np.ndarray | None = None
    boxes: list[Box] = field(default_factory=list)
    image: np.ndarray | None = None
    extra: dict[str, str | float] = field(default_factory=dict)
    extra_maps: dict[str, np.ndarray] = field(default_factory=dict)
    spacing: tuple[float, float] | None = None
