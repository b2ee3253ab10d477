# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The file that turns logits into calibrated probabilities and verdicts; it belongs to one checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.data.files import atomic_path, file_sha256

__all__ = ["read_classifier_calibration", "write_classifier_calibration"]

logger = logging.getLogger(__name__)


def write_classifier_calibration(
    path: str | Path, weights: str | Path, temperature: float, thresholds: Mapping[str, float]
) -> None:
    """
    Save what was fitted on validation images.

    Args:
        path: JSON file to write; it is complete or absent.
        weights: the checkpoint that it belongs to.
        temperature: divisor of the logits, positive.
        thresholds: operating point of every class, on the probabilities after the division, 0..1.
    """
    content = {"weights_sha256": file_sha256(weights), "temperature": temperature, "thresholds": dict(thresholds)}
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2))


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
        ``temperature``, ``thresholds`` by class and ``weights_sha256``.

    Raises:
        ValueError: When the file is malformed, or belongs to other weights or classes.
    """
    source = Path(path)
    if not source.is_file():
        logger.warning("no calibration '%s': probabilities are raw and come without verdicts", source.name)
        return None
    try:
        content = json.loads(source.read_text())
        known, temperature, thresholds = (content[k] for k in ("weights_sha256", "temperature", "thresholds"))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"'{source.name}' is no classifier calibration: {error}.") from None
    if weights_sha256 not in (None, known):
        raise ValueError(f"'{source.name}' belongs to other weights than those in use; calibrate again.")
    if set(thresholds) != set(classes):
        raise ValueError(f"'{source.name}' holds the classes {sorted(thresholds)}, not {sorted(classes)}.")
    return {"temperature": float(temperature), "thresholds": thresholds, "weights_sha256": known}
