# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Write ``model.json`` beside the weights and the calibration that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from bundle import __version__
from bundle.files import atomic_path, file_sha256
from bundle.model.content import (
    COMPACT_VERSION,
    FAMILIES,
    FORMAT,
    MODEL_FILE,
    WHOLE_VERSION,
    described,
    json_value,
    sealed,
)
from bundle.model.file import ModelFile

__all__ = ["rebind_model", "rewrite_model", "write_model"]

NOTICE = "Research use only. Not for diagnosis."


def write_model(
    folder: str | Path,
    family: str,
    weights: str | Path,
    network: nn.Module,
    settings: Mapping[str, Any],
    changeable: Mapping[str, Any] | None = None,
    training_set: Mapping[str, Any] | None = None,
    calibration: str | Path | None = None,
    started_from: Mapping[str, str] | None = None,
) -> None:
    """
    Write ``model.json`` beside a file of weights; it is complete or absent.

    Args:
        folder: of the weights and the calibration.
        family: ``adfa``, ``sna``, ``msa`` or ``detector``.
        weights: file in ``folder``.
        network: that the weights are of; see :py:func:`bundle.networks.arguments.keeps_arguments`.
        settings: that belong to the weights, by name: plain values, no path.
        changeable: settings that a user may change later.
        training_set: see :py:func:`bundle.model.describe_training_set`; ``None`` for a network that was not trained.
        calibration: file in ``folder``; one that does not exist is left out.
        started_from: ``name`` and ``weights_sha256`` of the model that the training went on from, if any.

    Raises:
        ValueError: When the family is unknown, a file lies elsewhere, or a setting is no plain finite value.
    """
    folder = Path(folder)
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got '{family}'.")
    content = {
        "format": FORMAT,
        "format_version": WHOLE_VERSION,
        "notice": NOTICE,
        "bundle_version": __version__,
        "family": family,
        "weights": _bound(Path(weights), folder),
        "calibration": _bound(Path(calibration), folder) if calibration and Path(calibration).is_file() else None,
        "network": described(network),
        "settings": json_value(settings, "settings"),
        "changeable": json_value(changeable or {}, "changeable"),
        "training_set": json_value(training_set, "training_set"),
    }
    if started_from is not None:
        content["started_from"] = dict(started_from)
    _write(folder, content)


def rewrite_model(
    model: ModelFile, folder: str | Path, calibration: str | Path, training_set: Mapping[str, Any] | None
) -> None:
    """
    Write the ``model.json`` of a folder that has a model's weights and another calibration.

    Args:
        model: that the weights are of.
        folder: of the copied weights and the calibration.
        calibration: file in ``folder``.
        training_set: that replaces the model's.

    Raises:
        ValueError: When the weights in ``folder`` are others, or the calibration lies elsewhere.
    """
    folder = Path(folder)
    weights = _bound(folder / model.content["weights"]["file"], folder)
    if weights != model.content["weights"]:
        raise ValueError(f"'{model.folder}' has changed while its weights were copied: start again.")
    _write(
        folder,
        {
            **model.content,
            "format": FORMAT,
            "bundle_version": __version__,
            "calibration": _bound(Path(calibration), folder),
            "training_set": json_value(training_set, "training_set"),
        },
    )


def rebind_model(model: ModelFile, folder: str | Path, version: int = COMPACT_VERSION) -> None:
    """
    Write the ``model.json`` of a folder that has a model's weights in another form, and its calibration for them.

    Args:
        model: whose settings and training set stay as they are.
        folder: of the weights and the calibration, under the names that they have in the model.
        version: of the format: ``COMPACT_VERSION``, or ``WHOLE_VERSION`` for a state dict of all tensors.
    """
    folder, known = Path(folder), model.content["calibration"]
    _write(
        folder,
        {
            **model.content,
            "format": FORMAT,
            "format_version": version,
            "bundle_version": __version__,
            "weights": _bound(folder / model.content["weights"]["file"], folder),
            "calibration": _bound(folder / known["file"], folder) if known else None,
        },
    )


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(folder / MODEL_FILE) as partial:
        partial.write_text(json.dumps(sealed(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _bound(file: Path, folder: Path) -> dict[str, str]:
    if file.resolve().parent != folder.resolve():
        raise ValueError(f"'{file}' must lie in the model's folder '{folder}'.")
    return {"file": file.name, "sha256": file_sha256(file)}
