# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The file that turns logits into calibrated probabilities and verdicts; it belongs to one checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.files import atomic_path, file_sha256
from bundle.model.calibration_checks import check_class_calibration, parse_calibration

__all__ = ["read_classifier_calibration", "write_classifier_calibration"]

logger = logging.getLogger(__name__)


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
    content = {
        "weights_sha256": file_sha256(weights),
        "temperature": temperature,
        "thresholds": dict(thresholds),
        "roc": dict(roc or {}),
    }
    check_class_calibration(content, Path(path).name, list(thresholds))
    with atomic_path(path) as partial:
        # a line a part: the points of the curves would be thousands of lines
        lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
        partial.write_text("{\n" + ",\n".join(lines) + "\n}\n")


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
    source = Path(path)
    if not source.is_file():
        logger.warning(
            "no calibration%s: probabilities are raw and come without verdicts",
            f" '{source.name}'" if source.name else "",
        )
        return None
    content = check_class_calibration(parse_calibration(source.read_bytes(), source.name), source.name, classes)
    if weights_sha256 not in (None, content["weights_sha256"]):
        raise ValueError(f"'{source.name}' belongs to other weights than those in use; calibrate again.")
    if missing := [name for name, threshold in content["thresholds"].items() if threshold is None]:
        logger.warning("no operating point for %s: no verdict on it", ", ".join(missing))
    return content
