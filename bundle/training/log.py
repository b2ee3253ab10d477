# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""One readable line per epoch, and curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.handlers import TensorBoardStatsHandler, from_engine

__all__ = ["LossCurves", "TrainingLog"]

_LOSS = from_engine(["loss"], first=True)


class TrainingLog:
    """
    Log epoch, mean loss, the metrics of trainer and evaluator, and the time left.

    Args:
        evaluator: its metrics are shown too; ``None`` for the trainer's alone.
        loss: takes the engine's output, returns the loss of one iteration.
        name: logger name; ``None`` means the engine's own logger.
    """

    def __init__(
        self, loss: Callable[[Any], Any] = _LOSS, evaluator: Engine | None = None, name: str | None = None
    ) -> None:
        self.evaluator, self.loss, self._name = evaluator, loss, name
        self.logger = logging.getLogger(name)
        self._total, self._count, self._start, self._first_epoch = 0.0, 0, 0.0, 0

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, behind the handlers that validate."""
        if self._name is None:
            self.logger = engine.logger
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _begin(self, engine: Engine) -> None:
        self._start, self._first_epoch = time.monotonic(), engine.state.epoch

    def _begin_epoch(self, engine: Engine) -> None:
        self._total, self._count = 0.0, 0

    def _add(self, engine: Engine) -> None:
        self._total, self._count = self._total + float(self.loss(engine.state.output)), self._count + 1

    def __call__(self, engine: Engine) -> None:
        """Log the line of the epoch that ended."""
        state: Any = engine.state  # MONAI's trainers always know max_epochs
        if self.evaluator is not None:
            state.metrics.update(self.evaluator.state.metrics)  # other loggers on the trainer find them there
        metrics = [f"{name} {value:.4f}" for name, value in state.metrics.items() if isinstance(value, float)]
        done = state.epoch - self._first_epoch
        left = (time.monotonic() - self._start) / done * (state.max_epochs - state.epoch)
        self.logger.info(
            "epoch %d/%d: loss %.4f, %s, %d:%02d left",
            state.epoch,
            state.max_epochs,
            self._total / max(self._count, 1),
            ", ".join(metrics) or "no metrics",
            left // 60,
            left % 60,
        )


class LossCurves(TensorBoardStatsHandler):
    """
    MONAI's curves of the loss and of the metrics of an engine for TensorBoard, from the first process alone.

    Args:
        folder: of the curves.
    """

    def __init__(self, folder: str) -> None:
        if idist.get_rank() == 0:
            super().__init__(log_dir=folder, tag_name="train_loss", output_transform=_LOSS)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        if idist.get_rank() == 0:
            super().attach(engine)
