# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""A model that a training goes on from: its settings, and its tensors by name and by class."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from bundle.files import file_sha256
from bundle.model.content import described
from bundle.model.read_file import read_model
from bundle.networks.pretrained import read_state_dict

__all__ = ["TrainingStart", "load_start"]

logger = logging.getLogger(__name__)


class TrainingStart:
    """
    A model whose weights a training starts from, and whose settings it takes.

    Args:
        path: the model folder, or the name of a shipped model.
        family: of the training.
        own: settings that are the training's own, such as its classes.
        free: settings that are the model's unless the training is given another value.

    Attributes:
        settings: that the training takes from the model, by name; ``weights`` is none of the usual starts.

    Raises:
        ValueError: When there is no such model, or it is of another family.
    """

    def __init__(self, path: str | Path, family: str, own: Collection[str], free: Collection[str]) -> None:
        self.model = read_model(path, family, "init_from")
        self.free = frozenset(free)
        taken = {name: value for name, value in self.model.settings.items() if name not in own}
        self.settings: dict[str, Any] = {**taken, "weights": None}

    @property
    def record(self) -> dict[str, str]:
        """Name and SHA-256 of the weights, as ``model.json`` keeps them."""
        return {"name": self.model.name, "weights_sha256": self.model.weights_sha256}

    def check(self, name: str, value: Any) -> None:
        """
        Refuse another value of a setting than the model has, where the training is not free in it.

        Args:
            name: of one of ``settings``.
            value: of the training.

        Raises:
            ValueError: When the model has another.
        """
        if name == "weights":
            raise ValueError(
                f"--weights {value} contradicts --init_from, which has the weights: leave one of them out."
            )
        if name not in self.free:
            self.model.check(name, value)


def load_start(start: TrainingStart, network: nn.Module, settings: Mapping[str, Any]) -> None:
    """
    Give a network the tensors of a model, and the rows of its classifier by the names of the classes.

    A class that the model has not keeps the row that it was made with, and so does every tensor of another shape.

    Args:
        start: the model.
        network: with ``classifier_layer``, as it was made.
        settings: of the training, those that ``model.json`` will keep; ``classes`` among them.

    Raises:
        ValueError: When a setting contradicts the model, the network is of another kind, or the weights are others than
            ``model.json`` names.
    """
    model, kind, classes = start.model, described(network)["name"], settings["classes"]
    for name, value in settings.items():
        if name in start.settings:
            start.check(name, value)
    if kind != model.described["name"]:
        raise ValueError(f"init_from '{model.name}' is a network {model.described['name']}, this training's is {kind}.")
    if file_sha256(model.weights) != model.weights_sha256:
        raise ValueError(f"'{model.weights}' is not the file that model.json describes: the SHA-256 differs.")
    saved, own = read_state_dict(model.weights), network.state_dict()
    rows = {place: model["classes"].index(name) for place, name in enumerate(classes) if name in model["classes"]}
    taken = {key: saved[key] for key, tensor in own.items() if key in saved and saved[key].shape == tensor.shape}
    head = {f"{network.classifier_layer}.{part}" for part in ("weight", "bias")}
    for key in head:
        taken[key] = own[key].clone()
        for place, row in rows.items():
            taken[key][place] = saved[key][row]
    network.load_state_dict(taken, strict=False)
    sizes = {key: parameter.numel() for key, parameter in network.named_parameters()}
    of_head = len(rows) / len(classes)
    logger.info(
        "training starts from the model '%s': %d of %d parameters are taken; new classes: %s",
        model.name,
        round(sum(size * (of_head if key in head else 1) for key, size in sizes.items() if key in taken)),
        sum(sizes.values()),
        ", ".join(name for place, name in enumerate(classes) if place not in rows) or "none",
    )
