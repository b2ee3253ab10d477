# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Fill and refresh the center bank of ADFA, and watch the embedding for collapse."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from bundle.anomaly.center_bank import mean_embedding
from bundle.training.processes.reduction import summed

__all__ = ["CenterBankUpdater"]

_MODES = ("once", "epoch", "ema")


class CenterBankUpdater:
    """
    Keep the center bank of a network at the mean embedding of the normal training images, per position (ADFA Eq. 3).

    The mean is exact over all images whatever the batch sizes, and over all processes when each sees a part of the
    images once. The released code averages batch means, which weights a short last batch wrongly.

    After each epoch the variance of the embedding of the first batch is logged, over its images and positions, as a
    share of its value at the start. A small share means that all patches fall onto one point, where the loss is zero
    and nothing is detected any more: a warning says so.

    Args:
        network: un-wrapped module with ``describe(images) -> (B, N, C)`` and a ``center_bank``.
        data_loader: each normal training image once; batches are dictionaries with an ``image``, ``(B, C, H, W)``.
        mode: ``epoch`` before the first epoch and after each, ``once`` before the first alone (the paper), or ``ema``:
            after each epoch the bank moves towards the new mean.
        momentum: share of the old bank that ``ema`` keeps, in [0, 1).
        collapse_share: warn when the variance falls below this share of its start, in (0, 1).
        name: logger name; ``None`` means the engine's own logger.

    Raises:
        ValueError: When ``mode`` is unknown or ``momentum`` is not in [0, 1).
    """

    def __init__(
        self,
        network: Any,
        data_loader: Iterable,
        mode: str = "epoch",
        momentum: float = 0.9,
        collapse_share: float = 0.05,
        name: str | None = None,
    ) -> None:
        if mode not in _MODES:
            raise ValueError(f"mode must be one of {_MODES}, got '{mode}'.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}.")
        self.network, self.data_loader, self.mode, self.momentum = network, data_loader, mode, momentum
        self.collapse_share, self._name = collapse_share, name
        self.logger = logging.getLogger(name)
        self._probe: torch.Tensor | None = None
        self.start_variance: float | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer; attach after what restores a checkpoint."""
        if self._name is None:
            self.logger = engine.logger
        engine.add_event_handler(Events.STARTED, self.start)
        if self.mode != "once":
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.watch)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: the variance at the start."""
        return {"start_variance": self.start_variance}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the variance at the start."""
        self.start_variance = state_dict["start_variance"]

    def start(self, engine: Engine) -> None:
        """Fill the bank, unless a checkpoint brought one."""
        self._probe = next(iter(self.data_loader))[CommonKeys.IMAGE]
        if engine.state.epoch == 0:
            self.network.center_bank.set_centers(mean_embedding(self.network, self.data_loader))
        if self.start_variance is None:
            self.start_variance = self.variance()

    def update(self, engine: Engine) -> None:
        """Move the bank to the mean of the present embedding, all the way or by ``1 - momentum``."""
        mean = mean_embedding(self.network, self.data_loader)
        if self.mode == "ema":
            mean = torch.lerp(mean, self.network.center_bank.centers, self.momentum)
        self.network.center_bank.set_centers(mean)

    def watch(self, engine: Engine) -> None:
        """Store the share of variance left in ``engine.state.metrics`` and warn of a collapse."""
        share = self.variance() / max(self.start_variance or 0.0, 1e-30)
        engine.state.metrics["embedding_variance"] = share
        if share < self.collapse_share:
            self.logger.warning(
                "The embedding has collapsed: %.1f %% of its variance at the start is left. Train for fewer epochs, "
                "lower the learning rate, or update the center bank once.",
                100 * share,
            )

    @torch.no_grad()
    def variance(self) -> float:
        """Return the variance of the first batch's embedding over images and positions, averaged over channels."""
        assert self._probe is not None
        probe = self._probe.to(self.network.center_bank.centers.device)
        patches = self.network.describe(probe).flatten(0, 1).double()
        total, squares, count = summed(patches.sum(dim=0), patches.square().sum(dim=0), len(patches))
        return float((squares / count - (total / count).square()).clamp_min(0).mean())
