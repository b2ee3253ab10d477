# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The features that say what kind of picture an image is, taken while a network runs."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.networks.utils import eval_mode
from torch import nn

from bundle.model.typicality import cells_of

__all__ = ["FeatureCells", "feature_cells"]


class FeatureCells:
    """
    Add ``feature_cells``, ``(16, C)``, to every item of an evaluator, before its post-processing.

    They are the means of the map of the network's ``feature_layer`` (of several, the one of number ``feature_map``, by
    default the last), see :py:func:`bundle.model.typicality.cells_of`. A network that names no layer, such as an
    exported file, adds nothing, and neither do images too small for it.

    Args:
        network: un-wrapped network that the evaluator runs.
    """

    def __init__(self, network: nn.Module) -> None:
        self.layer, self.number = _layer(network), getattr(network, "feature_map", -1)
        self._hook: Any = None
        self._cells: torch.Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: MONAI evaluator.
        """
        if self.layer is not None:
            engine.add_event_handler(Events.STARTED, self._listen)
            engine.add_event_handler(Events.ITERATION_STARTED, self._clear)
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)
            engine.add_event_handler(Events.COMPLETED, lambda _: self._hook.remove())

    def _listen(self, engine: Engine) -> None:
        assert self.layer is not None
        self._hook = self.layer.register_forward_hook(self._keep)

    def _clear(self, engine: Engine) -> None:
        self._cells = None

    def _keep(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        # the first pass counts: explanations and attention mining run the network once more, on other images
        if self._cells is None:
            self._cells = _cells(output, self.number)

    def __call__(self, engine: Engine) -> None:
        """Add the cells of the batch that has just gone through the network."""
        output: dict = engine.state.output  # type: ignore[assignment]
        if self._cells is not None:
            output["feature_cells"] = self._cells


def feature_cells(network: nn.Module, images: torch.Tensor) -> torch.Tensor | None:
    """
    Return the cells of images, ``(B, 16, C)``, or ``None`` for a network that names no layer, or small images.

    Args:
        network: with a ``feature_layer``; it is run in evaluation mode.
        images: shape ``(B, 3, H, W)``, on any device.
    """
    layer = _layer(network)
    if layer is None:
        return None
    found: list[torch.Tensor | None] = []
    number = getattr(network, "feature_map", -1)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    with eval_mode(network):  # without gradients
        hook = layer.register_forward_hook(lambda module, inputs, output: found.append(_cells(output, number)))
        try:
            network(torch.as_tensor(images).to(device))
        finally:
            hook.remove()
    return found[0]


def _layer(network: nn.Module) -> nn.Module | None:
    name = getattr(network, "feature_layer", None)
    return None if name is None else network.get_submodule(name)


def _cells(output: Any, number: int) -> torch.Tensor | None:
    features = output[number] if isinstance(output, list | tuple) else output  # a backbone returns several
    return cells_of(torch.as_tensor(features).detach())
