# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Validate and keep a moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn

__all__ = ["WeightAveraging"]


class WeightAveraging:
    """
    Put an exponential moving average into the network whenever it is validated or saved, and train on without it.

    Ignite's ``EMAHandler`` keeps the average in a second network. Here the two change places at the end of every epoch
    and back at the start of the next, so validation, checkpoints and the trained network need not know of it. It stands
    before the validation in the list of handlers.

    Args:
        network: network being trained.
        momentum: share of the new weights in every step, such as 0.01; 0 leaves the weights alone.

    Raises:
        ValueError: When ``momentum`` is not in [0, 1).
    """

    def __init__(self, network: nn.Module, momentum: float) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}.")
        self.network = network
        self.average = EMAHandler(network, momentum=momentum) if momentum > 0 else None
        self.swapped = False

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: trainer of the network.
        """
        if self.average is not None:
            self.average.attach(engine)
            engine.add_event_handler(Events.EPOCH_STARTED, self._train_on)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._show_average)

    def _show_average(self, engine: Engine) -> None:
        self._swap()
        self.swapped = True

    def _train_on(self, engine: Engine) -> None:
        if self.swapped:
            self._swap()
            self.swapped = False

    def _swap(self) -> None:
        if self.average is not None:
            other = self.average.ema_model
            mine = copy.deepcopy(self.network.state_dict())
            self.network.load_state_dict(other.state_dict())
            other.load_state_dict(mine)

    def state_dict(self) -> dict[str, Any]:
        """Return the set of weights that is not in the network, and which one it is."""
        other = None if self.average is None else self.average.ema_model.state_dict()
        return {"other": other, "swapped": self.swapped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Args:
            state: what :py:meth:`state_dict` returned.

        Raises:
            ValueError: When it was saved with averaging and this one has none, or the other way round.
        """
        if (state["other"] is None) != (self.average is None):
            raise ValueError("momentum must be 0 in both runs or in neither.")
        if self.average is not None:
            self.average.ema_model.load_state_dict(state["other"])
        self.swapped = state["swapped"]
