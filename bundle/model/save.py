# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The last step of a training: the file that says what its weights are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.bundle import ConfigParser
from torch import nn

from bundle.lists.patients import items_digest
from bundle.model.start import TrainingStart
from bundle.model.training_set import describe_training_set, gathered_cells
from bundle.model.write_file import write_model

logger = logging.getLogger(__name__)
__all__ = ["save_start", "save_trained"]


@idist.one_rank_only(with_barrier=True)
def save_trained(
    folder: str | Path,
    family: str,
    weights: str | Path,
    network: nn.Module,
    settings: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    typical_images: Iterable[Mapping[str, Any]],
    changeable: Mapping[str, Any] | None = None,
    calibration: str | Path | None = None,
    mixed: bool = False,
    modality: str = "",
    view: str = "",
    start: TrainingStart | None = None,
) -> None:
    """
    Write ``model.json`` for a network that has just been trained, in the first process.

    Args:
        folder: see :py:func:`bundle.model.write_model`, as the other arguments that it has too.
        family: see there.
        weights: see there.
        network: see there; it has the weights of the file.
        settings: see there.
        items: of the training set, preprocessed.
        typical_images: batches that the weights were not fitted to, see :py:func:`describe_training_set`.
        changeable: see there.
        calibration: see there.
        mixed: whether several kinds of images were allowed.
        modality: of the images whose files state none, see :py:func:`describe_training_set`.
        view: the same.
        start: model that the training went on from.
    """
    named = [{**item, "image": item["image"].meta["filename_or_obj"]} for item in items]
    cells = gathered_cells(network, typical_images)
    training_set = describe_training_set(items, items_digest(named), cells, mixed, modality, view)
    if training_set["features"] is None:
        logger.warning(
            "another kind of picture is recognized by tags, color and size alone: more needs images of 112 pixels a "
            "side or more, and ten of them that the weights were not fitted to"
        )
    started_from = None if start is None else start.record
    write_model(folder, family, weights, network, settings, changeable, training_set, calibration, started_from)


def save_start(config: ConfigParser, folder: str | Path, network: nn.Module | None = None) -> Path:
    """
    Write a network before any training as a model folder: for tests, benchmarks and bundles without trained weights.

    Args:
        config: of a family's training, with its settings.
        folder: made where it is missing.
        network: of the configuration; ``None`` has it built.

    Returns:
        the file of weights.
    """
    weights = Path(folder) / "model.pt"
    weights.parent.mkdir(parents=True, exist_ok=True)
    slot = config.get_parsed_content
    network = slot("network_def") if network is None else network
    torch.save(network.state_dict(), weights)
    calibration = weights.parent / "calibration.json"
    settings, changeable = slot("model_settings"), slot("changeable_settings")
    write_model(folder, config["family"], weights, network, settings, changeable, calibration=calibration)
    return weights
