# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of a training run: the best network, and everything a resumed run needs."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from bundle.errors import reason_of
from bundle.files import atomic_path
from bundle.reading.datasets import InMemoryDataset
from bundle.training.processes.parallel import in_processes

__all__ = ["EpochSeeder", "TrainingCheckpoint", "save_atomically", "save_weights"]

logger = logging.getLogger(__name__)


def save_atomically(content: Any, path: str | Path) -> None:
    """Write a PyTorch file under a temporary name and rename it, so it is complete or absent."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        try:
            torch.save(content, file)  # given a name, PyTorch writes it into the file, whose hash then differs
        except RuntimeError as error:  # PyTorch's own words about a write that failed
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def save_weights(network: nn.Module, path: str | Path) -> None:
    """
    Save a network's state dict from the first process; the others wait for it.

    Args:
        network: un-wrapped network.
        path: file to write; it is complete or absent.
    """
    if idist.get_rank() == 0:
        save_atomically(network.state_dict(), Path(path))
    idist.barrier()


class EpochSeeder:
    """
    Seed PyTorch before every epoch from the run's seed and the epoch's number.

    Shuffling and random transforms of an epoch then do not depend on the epochs before it, so a resumed run sees the
    same batches as an uninterrupted one.

    Args:
        seed: of the run.
        transform: random MONAI transform to seed as well, or ``None``.
        dataset: in several processes the random transform draws the numbers of each image from the epoch and the
            image's place in this data set, so that they do not depend on how the images are shared.
    """

    def __init__(self, seed: int, transform: Any = None, dataset: InMemoryDataset | None = None) -> None:
        self.seed, self.transform, self.dataset = seed, transform, dataset

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed for ``engine.state.epoch``."""
        sampler = getattr(engine.state.dataloader, "batch_sampler", None)
        if sampler is not None and hasattr(sampler, "set_epoch"):  # MONAI tells samplers, but none of batches
            sampler.set_epoch(engine.state.epoch)
        seed = (self.seed * 1_000_003 + engine.state.epoch) % 2**32
        torch.manual_seed(seed + idist.get_rank())  # dropout differs between processes
        if self.dataset is not None and in_processes():
            self.dataset.item_seed = seed
        elif self.transform is not None:
            self.transform.set_random_state(seed=seed)


class TrainingCheckpoint:
    """
    Save the state of a run after every epoch and the network of the best epoch, and resume from the former.

    MONAI's ``CheckpointSaver`` and ``CheckpointLoader`` forget the best figure so far, so that a resumed run may
    replace the best network by a worse one; here it is part of the checkpoint. Both files are complete or absent.

    The state is restored when the handler is attached, before any event. It stands last in the list of handlers, so
    that validation has run when it saves; the untrained network counts as epoch 0 where validation runs at the start.

    Args:
        checkpoint_path: state of the run, for resuming.
        best_path: state dict of the best network alone, or the last one without an evaluator.
        save_dict: what to save; must hold ``network``; the trainer is added.
        evaluator: its key metric decides what is best, larger is better; ``None`` keeps the last network.
        resume: continue from ``checkpoint_path`` where it exists.

    Raises:
        ValueError: When ``save_dict`` has no ``network``, ``resume`` is no boolean, or a checkpoint does not fit
            (another network).
    """

    def __init__(
        self,
        checkpoint_path: str | Path,
        best_path: str | Path,
        save_dict: Mapping[str, Any],
        evaluator: Engine | None = None,
        resume: bool = False,
    ) -> None:
        if "network" not in save_dict:
            raise ValueError(f"save_dict must hold 'network', got {sorted(save_dict)}.")
        if not isinstance(resume, bool):  # the command line takes `false` for a word, which would count as true
            raise ValueError(f"resume must be True or False, spelled so, got '{resume}'.")
        self.checkpoint_path, self.best_path = Path(checkpoint_path), Path(best_path)
        self.save_dict, self.evaluator, self.resume = dict(save_dict), evaluator, resume
        self.best_metric: float | None = None
        self.best_epoch = 0
        self._scale: dict[str, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, and restore its state when resuming."""
        self.save_dict["trainer"] = engine
        if self.resume and self.checkpoint_path.is_file():
            self._load(engine)
        engine.add_event_handler(Events.STARTED, self._take_scaler)
        engine.add_event_handler(Events.STARTED, self._keep_best)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def _load(self, engine: Engine) -> None:
        try:
            state = torch.load(self.checkpoint_path, map_location="cpu", weights_only=True)
            state["trainer"]["max_epochs"] = engine.state.max_epochs  # a longer run may be wanted now
            for name, target in self.save_dict.items():
                target.load_state_dict(state[name])
            self._scale = state.get("scaler", {})
        except Exception as error:
            raise ValueError(
                f"cannot resume from '{self.checkpoint_path.name}': {reason_of(error)[:300]} "
                "Was it written with other settings?"
            ) from None
        self.best_metric, self.best_epoch = state["best_metric"], state["best_epoch"]
        logger.info("resumed from '%s' after epoch %d", self.checkpoint_path.name, state["trainer"]["epoch"])

    def _take_scaler(self, engine: Engine) -> None:
        """Add the scale of losses in half precision, which MONAI's trainer makes when it starts, and restore it."""
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            self.save_dict["scaler"] = scaler
            if self._scale:  # none, where the run began on a CPU
                scaler.load_state_dict(self._scale)

    def _keep_best(self, engine: Engine) -> None:
        metric = None
        if self.evaluator is not None:
            state: Any = self.evaluator.state
            metric = state.metrics.get(state.key_metric_name)
            if metric is None:
                return
            best = math.nan if self.best_metric is None else self.best_metric
            if not (math.isnan(best) or metric > best):  # a metric that is not a number is not better
                return
        elif engine.state.epoch == 0:
            return
        self.best_metric, self.best_epoch = None if metric is None else float(metric), engine.state.epoch
        if idist.get_rank() == 0:
            save_atomically(self.save_dict["network"].state_dict(), self.best_path)

    def __call__(self, engine: Engine) -> None:
        """Save after an epoch; only the first of several processes writes."""
        self._keep_best(engine)
        if idist.get_rank() != 0:
            return
        state = {name: target.state_dict() for name, target in self.save_dict.items()}
        progress = ("epoch", "max_epochs", "epoch_length")
        state["trainer"] = {name: getattr(engine.state, name) for name in progress}
        save_atomically({**state, "best_metric": self.best_metric, "best_epoch": self.best_epoch}, self.checkpoint_path)
