# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The one object that every writer takes: what was found in one image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bundle import __version__
from bundle.reading.header import Header

__all__ = [
    "NOTICE",
    "VERDICTS",
    "Algorithm",
    "Box",
    "ImageResult",
    "NotWrittenError",
    "not_finite",
    "pixels_seen",
    "remarks",
    "sentences",
]

NOTICE = "Research use only. Not for diagnosis."
VERDICTS = ("abnormal", "not flagged", "not assessed")


class NotWrittenError(ValueError):
    """A result that a format cannot carry: one line with the rule and the value, and no text from inside the source."""


@dataclass(frozen=True)
class Algorithm:
    """
    What made the results, as tables, report and DICOM objects state it.

    Args:
        name: of the method, e.g. ``"ADFA, EfficientNet-Lite0"``.
        version: of this package and, if it has one, of the model.
        weights_sha256: SHA-256 of the checkpoint file in hexadecimal, or ``None`` for a model without a file.
        parameters: settings that change the result, in words or numbers.
        model: name of the model folder, without its path; a shipped model's own name. ``None`` where there is none.
    """

    name: str = "unnamed model"
    version: str = __version__
    weights_sha256: str | None = None
    parameters: dict[str, str | float] = field(default_factory=dict)
    model: str | None = None


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
        map_height: mean height inside of the map that the box was drawn on, stretched to 0..1. It ranks the boxes of
            one image; it is no probability, and another image's map is stretched otherwise. ``None`` for a box that
            was drawn on no map.
        score: of a detector's box, its calibrated probability, 0..1; ``None`` for others.
    """

    label: str
    x: float
    y: float
    width: float
    height: float
    map_height: float | None = None
    score: float | None = None


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
        true_findings: names of the findings that are there, ``None`` where that is not known.
        probabilities: of each class by name, 0..1.
        finding_probability: of the most probable finding, which leaves out a class that is none, 0..1; what images are
            sorted by where there is no anomaly score.
        anomaly_score: of an anomaly detector; larger is more abnormal, no upper limit.
        anomaly_score_raw: largest value of an anomaly detector's map, as the paper has it.
        p_value: conformal p-value of the anomaly score among normal images, (0, 1]; approximate after a refit.
        abnormal: verdict at the saved threshold, ``None`` without one.
        heatmap_class: class that the heatmap is of, ``None`` where it is of no class.
        heatmap: float32, shape ``(rows, columns)`` of the source frame; not-a-number outside of ``seen``.
        boxes: findings with a place, best first.
        image: display values 0..1, or 0..255 as bytes, shape ``(rows, columns)`` or ``(rows, columns, 3)``.
        extra: further columns for the tables, plain numbers or words.
        spacing: millimetres per row and per column of the source frame, ``None`` or not-a-number where unknown.
        extra_maps: further maps by name, each like ``heatmap``; the report shows them side by side with it.
        display_note: what was done about a display hint of the file that could not be applied, one sentence or empty.
        not_assessed: the rule and the value for which there is no verdict. Then ``abnormal`` is ``None`` and there are
            no boxes, whatever was given: no finding is called present or absent. ``None`` for an assessed image.
        operating_points: probability from which a finding is called present, by name, 0..1; ``None`` for a finding
            without one, which is called neither present nor absent.
        seen: x, y, width, height of the part of the source frame that the network looked at, in pixels like those of
            :py:class:`Box`; ``None`` for all of it.
        header: what the reader learned of the file; ``None`` for an image that comes from nowhere else.

    Example:
        >>> ImageResult("a", Path("a.dcm"), abnormal=False, not_assessed="all pixels are 0").verdict
        'not assessed'
    """

    key: str
    source: Path
    frame: int = 0
    subject: str | None = None
    label: int | None = None
    true_findings: list[str] | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    finding_probability: float | None = None
    anomaly_score: float | None = None
    anomaly_score_raw: float | None = None
    p_value: float | None = None
    abnormal: bool | None = None
    heatmap_class: str | None = None
    heatmap: np.ndarray | None = None
    boxes: list[Box] = field(default_factory=list)
    image: np.ndarray | None = None
    extra: dict[str, str | float] = field(default_factory=dict)
    extra_maps: dict[str, np.ndarray] = field(default_factory=dict)
    spacing: tuple[float, float] | None = None
    display_note: str = ""
    not_assessed: str | None = None
    operating_points: dict[str, float | None] = field(default_factory=dict)
    seen: tuple[float, float, float, float] | None = None
    header: Header | None = None

    def __post_init__(self) -> None:
        if self.not_assessed is not None:
            self.abnormal, self.boxes = None, []

    @property
    def verdict(self) -> str:
        """``abnormal``, ``not flagged``, ``not assessed``, or nothing where no threshold is known."""
        if self.not_assessed is not None:
            return "not assessed"
        return "" if self.abnormal is None else "abnormal" if self.abnormal else "not flagged"

    def presence(self, finding: str) -> bool | None:
        """
        Return whether a finding is called present, ``None`` where it is called neither present nor absent.

        Args:
            finding: a name of ``probabilities``.
        """
        point = self.operating_points.get(finding)
        if point is None or self.not_assessed is not None or finding not in self.probabilities:
            return None
        return self.probabilities[finding] >= point

    @property
    def present_findings(self) -> list[str] | None:
        """Findings at or above their operating points, ``None`` where no finding is called present or absent."""
        presence = {name: self.presence(name) for name in self.operating_points}
        if all(present is None for present in presence.values()):
            return None
        return [name for name, present in presence.items() if present]


def pixels_seen(shape: tuple[int, int], seen: tuple[float, float, float, float] | None) -> np.ndarray:
    """
    Return which pixels the network looked at: those whose center lies in the part that it saw.

    Args:
        shape: rows and columns of the source frame.
        seen: as in :py:class:`ImageResult`.

    Returns:
        booleans of that shape.

    Example:
        >>> pixels_seen((1, 4), (1.0, 0.0, 2.0, 1.0)).tolist()
        [[False, True, True, False]]
    """
    if seen is None:
        return np.ones(shape, dtype=bool)
    x, y, width, height = seen
    rows, columns = (np.arange(n) + 0.5 for n in shape)
    inside = (rows >= y) & (rows <= y + height)
    return inside[:, None] & ((columns >= x) & (columns <= x + width))


def not_finite(result: ImageResult) -> str | None:
    """
    Return which number of a result is not-a-number or infinite, with the rule, or ``None`` where none is.

    Such a number compares as false with every threshold, so it would read as "not flagged".

    Args:
        result: what was found; outside of ``seen`` a map has no values.

    Example:
        >>> not_finite(ImageResult("a", Path("a.dcm"), anomaly_score=float("nan")))
        'anomaly_score must be finite, got nan.'
    """
    fields = ("finding_probability", "anomaly_score", "anomaly_score_raw", "p_value")
    numbers: dict[str, float | str | None] = {name: getattr(result, name) for name in fields}
    numbers |= {f"probability of {name}": value for name, value in result.probabilities.items()}
    numbers |= {f"operating point of {name}": value for name, value in result.operating_points.items()}
    numbers |= dict(result.extra)
    for box in result.boxes:
        numbers |= {f"{name} of a box": value for name, value in vars(box).items() if name != "label"}
    for name, value in numbers.items():
        if value is not None and not isinstance(value, str) and not math.isfinite(value):
            return f"{name} must be finite, got {value}."
    maps = {} if result.heatmap is None else {"heatmap": result.heatmap}
    for name, heat in (maps | result.extra_maps).items():
        values = np.asarray(heat)
        if np.isfinite(values).all():  # as most maps are
            continue
        if values.ndim != 2 or not np.isfinite(values[pixels_seen(values.shape, result.seen)]).all():
            return f"{name} must be finite where the network looked, some values are not."
    return None


def remarks(result: ImageResult) -> list[str]:
    """
    Return the sentences that belong beside the numbers of an image: no verdict, what was not looked at, its display.

    Args:
        result: what was found.

    Example:
        >>> remarks(ImageResult("a", Path("a.dcm"), seen=(8, 0, 48, 64)))
        ['Not looked at: what lies outside of columns 8 to 56 and rows 0 to 64.']
    """
    return sentences(vars(result))


def sentences(record: Mapping[str, Any]) -> list[str]:
    """
    Return :py:func:`remarks` of an image of the tables.

    Args:
        record: with ``not_assessed``, ``seen`` and ``display_note``, where it is of schema 2.0 or later.
    """
    words = []
    if record.get("not_assessed") is not None:
        words.append(f"Not assessed: {record['not_assessed']}")
    if record.get("seen") is not None:
        x, y, width, height = record["seen"]
        left, right, top, bottom = (f"{round(edge, 1):g}" for edge in (x, x + width, y, y + height))
        words.append(f"Not looked at: what lies outside of columns {left} to {right} and rows {top} to {bottom}.")
    if record.get("display_note"):
        words.append(f"Display: {record['display_note']}")
    return words
