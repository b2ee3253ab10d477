# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The attention maps of a network while an evaluator runs."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys
from torch import nn

from bundle.networks.maps import normalized_maps

__all__ = ["AttentionMaps"]


class AttentionMaps:
    """
    Add the map of a network's first spatial attention block to every item of an evaluator, before its post-processing.

    Blocks with a method ``attention(features)`` that returns ``(B, 1, H, W)`` have a map: spectral norm attention and
    pixel context. A network without one adds nothing.

    Args:
        network: un-wrapped network that the evaluator runs.
    """

    def __init__(self, network: nn.Module) -> None:
        # an attribute of the instance that is called attention is a block inside another one, not a method
        blocks = (m for m in network.modules() if isinstance(getattr(type(m), "attention", None), FunctionType))
        self.block: Any = next(blocks, None)
        self._hook: Any = None
        self._map: torch.Tensor | None = None

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: MONAI evaluator.
        """
        if self.block is not None:
            engine.add_event_handler(Events.STARTED, self._listen)
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)
            engine.add_event_handler(Events.COMPLETED, lambda _: self._hook.remove())

    def _listen(self, engine: Engine) -> None:
        self._hook = self.block.register_forward_pre_hook(self._keep)

    def _keep(self, block: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        with torch.no_grad():
            self._map = self.block.attention(inputs[0].detach())

    def __call__(self, engine: Engine) -> None:
        """Add the maps of the batch that has just gone through the network, each stretched to 0..1."""
        output: dict = engine.state.output  # type: ignore[assignment]
        assert self._map is not None
        size = output[CommonKeys.IMAGE].shape[2:]
        maps = F.interpolate(self._map.float(), size=size, mode="bilinear", align_corners=False)
        output["attention"] = normalized_maps(maps)
