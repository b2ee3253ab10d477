# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""The loss of all processes, for whoever logs it."""

from __future__ import annotations

import ignite.distributed as idist
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from monai.utils import CommonKeys

from bundle.training.processes.reduction import summed

__all__ = ["MeanLoss"]


class MeanLoss:
    """Put the mean loss over all processes into a trainer's output, once the gradients are computed."""

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: MONAI trainer.
        """
        if idist.get_world_size() > 1:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Replace the loss of this process."""
        output: dict = engine.state.output  # type: ignore[assignment]
        output[CommonKeys.LOSS] = summed(output[CommonKeys.LOSS])[0] / idist.get_world_size()
