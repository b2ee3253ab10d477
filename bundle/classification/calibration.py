# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The file that turns logits into calibrated probabilities and verdicts; it belongs to one checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bundle.classification.operating_points import thresholds_of
from bundle.model.calibration_file import (
    check_order,
    checked_calibration,
    read_calibration_file,
    write_calibration_file,
)
from bundle.results.verdicts import findings_of
from bundle.rules import number_in, shown, whole_number

__all__ = [
    "at_operating_point",
    "check_classifier_calibration",
    "read_classifier_calibration",
    "write_classifier_calibration",
]

logger = logging.getLogger(__name__)
_PARTS = ("temperature", "thresholds")
_MOST_POINTS = 1000  # of one class's curve


def check_classifier_calibration(content: Any, source: str, classes: Sequence[str]) -> dict[str, Any]:
    """
    Return the calibration of a classifier, after checking every part of it.

    Args:
        content: of a file, or made by a program: ``weights_sha256``, ``temperature``, ``thresholds`` (operating point
            by class, ``None`` for a class without one) and, where it was kept, ``roc`` (by class what
            :py:func:`bundle.classification.operating_points.roc_points` returns, or ``None``).
        source: name of the file, for messages.
        classes: names of the classes in use.

    Returns:
        ``weights_sha256``, ``temperature``, ``thresholds`` in the order of ``classes``, and ``roc``, empty where it was
        not kept.

    Raises:
        ValueError: When a part is missing, of another type, not finite or out of range, or the classes are others.
    """
    return checked_calibration(content, source, _PARTS, partial(_checked, classes=classes))


def write_classifier_calibration(
    path: str | Path,
    weights: str | Path,
    temperature: float,
    thresholds: Mapping[str, float | None],
    roc: Mapping[str, Mapping[str, Any] | None] | None = None,
) -> None:
    """
    Save what was fitted on validation images.

    Args:
        path: JSON file to write; it is complete or absent.
        weights: the checkpoint that it belongs to.
        temperature: divisor of the logits, positive.
        thresholds: operating point of every class, on the probabilities after the division, 0..1; ``None`` for a class
            that the images give none for.
        roc: of every class what :py:func:`bundle.classification.operating_points.roc_points` returned, from which
            another operating point can be chosen without images; ``None`` to keep none.

    Raises:
        ValueError: When a value is not finite or out of range.
    """
    parts = {"temperature": temperature, "thresholds": dict(thresholds), "roc": dict(roc or {})}
    check = partial(check_classifier_calibration, classes=list(thresholds))
    write_calibration_file(path, weights, parts, check)


def read_classifier_calibration(
    path: str | Path, weights_sha256: str | None, classes: list[str]
) -> dict[str, Any] | None:
    """
    Read a calibration, or return ``None`` with a warning where there is none.

    Args:
        path: JSON file of :py:func:`write_classifier_calibration`.
        weights_sha256: of the checkpoint in use; ``None`` skips the comparison.
        classes: names of the classes in use.

    Returns:
        ``temperature``, ``thresholds`` by class (``None`` for a class without one), ``roc`` by class (empty where it
        was not kept) and ``weights_sha256``.

    Raises:
        ValueError: When the file is malformed, a part of it is missing, not finite or out of range, or it belongs to
            other weights or classes.
    """
    check, without = partial(check_classifier_calibration, classes=classes), "probabilities are raw, without verdicts"
    content = read_calibration_file(path, weights_sha256, check, without)
    if missing := [name for name, threshold in (content or {}).get("thresholds", {}).items() if threshold is None]:
        logger.warning("no operating point for %s: no verdict on it", ", ".join(missing))
    return content


def at_operating_point(
    calibration: Mapping[str, Any] | None,
    classes: Sequence[str],
    normal_class: str | None = None,
    sensitivity: float | None = None,
    specificity: float | None = None,
    probability_threshold: float | None = None,
) -> dict[str, Any] | None:
    """
    Return a calibration at another operating point, from the curves that it keeps.

    Args:
        calibration: what :py:func:`read_classifier_calibration` returned.
        classes: names of the classes in use.
        normal_class: class that is no finding, which keeps the largest sum of both.
        sensitivity: that each finding's operating point is to promise, in (0, 1).
        specificity: the same; one of them, or none for the calibration's own points.
        probability_threshold: of a run, in place of all operating points.

    Raises:
        ValueError: When there is no calibration, it cannot promise what is wished for, or two wishes contradict.

    Example:
        >>> roc = {"positives": 1, "negatives": 1, "thresholds": [0.75, 0.25], "tpr": [0.0, 1.0], "fpr": [0.0, 0.0]}
        >>> at_operating_point({"roc": {"Mass": roc}}, ["Mass"], sensitivity=0.5)["thresholds"]
        {'Mass': 0.25}
    """
    given = {"sensitivity": sensitivity, "specificity": specificity}
    wishes = [f"{name} {wish}" for name, wish in given.items() if wish is not None]
    if not wishes:
        return None if calibration is None else dict(calibration)
    if calibration is None:
        raise ValueError(f"{wishes[0]} needs a calibration to choose from, this model has none that applies.")
    if probability_threshold is not None:
        raise ValueError(f"{wishes[0]} contradicts probability_threshold {probability_threshold}: give one of them.")
    findings = findings_of(classes, normal_class)
    return {**calibration, "thresholds": thresholds_of(calibration.get("roc") or {}, **given, findings=findings)}


def _checked(content: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    thresholds, roc = content["thresholds"], {} if content.get("roc") is None else content["roc"]
    temperature = number_in("temperature", content["temperature"], 0.01, 100)
    for name, value in (("thresholds", thresholds), ("roc", roc)):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be given by class, got {shown(value)}.")
        if set(value) != set(classes) and (value or name == "thresholds"):
            raise ValueError(f"'{name}' holds the classes {sorted(map(str, value))}, not {sorted(classes)}.")
    for label in classes:
        if thresholds[label] is not None:
            number_in(f"thresholds of '{label}'", thresholds[label], 0, 1)
        if roc and roc[label] is not None:
            _check_roc(f"roc of '{label}'", roc[label])
    return {
        "temperature": temperature,
        "thresholds": {label: None if thresholds[label] is None else float(thresholds[label]) for label in classes},
        "roc": {label: roc[label] for label in classes} if roc else {},
    }


def _check_roc(name: str, roc: Any) -> None:
    """Refuse what is no curve of :py:func:`bundle.classification.operating_points.roc_points`."""
    lists = ("thresholds", "tpr", "fpr")
    if not isinstance(roc, Mapping) or any(part not in roc for part in ("positives", "negatives", *lists)):
        raise ValueError(f"{name} must hold positives, negatives, {', '.join(lists)}, got {shown(roc)}.")
    for part in ("positives", "negatives"):
        whole_number(f"{name}: {part}", roc[part])
    values = {part: check_order(f"{name}: {part}", roc[part], descending=part == "thresholds") for part in lists}
    lengths = [len(value) for value in values.values()]
    if len(set(lengths)) > 1 or lengths[0] > _MOST_POINTS:
        raise ValueError(f"{name} must have lists of one length, at most {_MOST_POINTS}, got {lengths}.")
    for part in lists:
        for end in (values[part][0], values[part][-1]):
            number_in(f"{name}: {part}", end, 0, 1)
