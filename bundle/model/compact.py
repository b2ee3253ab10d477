# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies of a model folder, rebound by SHA-256: without the weights that come with the installation, or with all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bundle.files import atomic_path
from bundle.model.calibration_file import write_calibration_file
from bundle.model.content import WHOLE_VERSION
from bundle.model.predict import Model, Predictions
from bundle.model.read_file import read_model
from bundle.model.write_file import rebind_model
from bundle.networks.compact import save_compact
from bundle.networks.pretrained import read_state_dict

__all__ = ["THREE_DIGITS", "compact_model", "largest_difference", "whole_model"]

THREE_DIGITS = 5e-4


def compact_model(
    folder: str | Path, output_dir: str | Path, images: Sequence[str | Path], tolerance: float = THREE_DIGITS
) -> tuple[bool, float]:
    """
    Write a model folder whose weights leave out what the trunk's package has, and are half as long where that is safe.

    What is left is kept in half precision only where the scores of ``images`` then stay the same to three digits, in
    float32 otherwise. ``model.json`` and the calibration, whose numbers stay, are bound to the new file.

    Args:
        folder: of the model, which stays as it is.
        output_dir: of the small copy; files of a model in it are replaced.
        images: that decide about half precision, one or more.
        tolerance: largest difference of scores by half precision, see :py:func:`largest_difference`.

    Returns:
        whether half precision was taken, and the largest difference of scores, see :py:func:`largest_difference`.

    Raises:
        ValueError: When the folder holds no model, no image is given or can be read, or float32 does not give the
            scores either.
    """
    model, output_dir = read_model(folder), Path(output_dir)
    state, wanted = read_state_dict(model.weights), _scores(folder, images)
    if not wanted:
        raise ValueError(f"images must be one or more that can be read, got {len(images)} of which none can.")
    for half in (True, False):
        with tempfile.TemporaryDirectory() as place:
            made = Path(place)
            save_compact(state, made / Path(model.weights).name, half)
            if model.calibration:
                content = json.loads(Path(model.calibration).read_text(encoding="utf-8"))
                _write_rebound(made / Path(model.calibration).name, content, made / Path(model.weights).name)
            rebind_model(model, made)
            difference = largest_difference(wanted, _scores(made, images))
            if difference > (tolerance if half else THREE_DIGITS):
                continue
            output_dir.mkdir(parents=True, exist_ok=True)
            for file in sorted(made.iterdir(), key=lambda path: path.name == "model.json"):  # that comes last
                with atomic_path(output_dir / file.name) as partial:
                    shutil.copyfile(file, partial)
            return half, difference
    raise ValueError(f"'{folder}': scores must stay the same to three digits, they differ by {difference:.2g}.")


def whole_model(folder: str | Path, output_dir: str | Path) -> None:
    """
    Write a model folder whose weights are the whole state dict, so that no other package is needed to read them.

    Args:
        folder: of the model, which stays as it is, or the name of a shipped one.
        output_dir: of the copy; files of a model in it are replaced, ``model.json`` last.

    Raises:
        ValueError: When the folder holds no model, or its weights are others than those of its network.
    """
    model, output_dir = read_model(folder), Path(output_dir)
    network = model.network()
    network.load_state_dict(read_state_dict(model.weights))
    output_dir.mkdir(parents=True, exist_ok=True)
    weights = output_dir / Path(model.weights).name
    with atomic_path(weights) as partial, partial.open("wb") as file:
        torch.save(network.state_dict(), file)  # given a name, PyTorch writes it into the file, whose hash then differs
    if model.calibration:
        content = json.loads(Path(model.calibration).read_text(encoding="utf-8"))
        _write_rebound(output_dir / Path(model.calibration).name, content, weights)
    rebind_model(model, output_dir, WHOLE_VERSION)


def largest_difference(wanted: Sequence[float], found: Sequence[float]) -> float:
    """
    Return the largest difference of scores, relative to the wanted one, and absolute for those between 0 and 1.

    Args:
        wanted: scores.
        found: the same images'.

    Example:
        >>> largest_difference([1.0, 4.0], [1.0, 3.0]), largest_difference([0.5, 1.0], [0.25, 1.0])
        (0.25, 0.25)
    """
    if len(wanted) != len(found):
        return float("inf")
    floor = min(1.0, max(map(abs, wanted))) or 1.0  # a small probability has no third digit of its own
    return max(abs(a - b) / max(abs(a), floor) for a, b in zip(wanted, found, strict=True))


def _scores(folder: str | Path, images: Sequence[str | Path]) -> list[float]:
    """Return every score and probability of images, one after the other."""
    results: Predictions = Model(folder, "cpu").predict([str(image) for image in images])
    found: list[float] = []
    for result in results:
        found += [] if result.anomaly_score is None else [float(result.anomaly_score)]
        found += [float(value) for value in (result.probabilities or {}).values()]
    return found


def _write_rebound(path: Path, content: dict[str, Any], weights: Path) -> None:
    """Write a calibration for other weights, which give the same scores."""
    parts = {name: value for name, value in content.items() if name != "weights_sha256"}
    write_calibration_file(path, weights, parts, lambda content, _: content)  # the family's own check was passed
