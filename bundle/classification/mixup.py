# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""MixUp as a handler, so that the loss and the trainer need not know of it."""

from __future__ import annotations

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from bundle.classification.targets import multi_hot

__all__ = ["MixUp"]


class MixUp:
    """
    Blend every training image and its targets with another one of the batch (Zhang et al., 2018, arXiv:1710.09412).

    MONAI's transform of the same name needs to know the batch size and so fails on a short last batch.

    Args:
        num_classes: number of classes ``K``; the blended labels have shape ``(B, K)``.
        alpha: both parameters of the beta distribution of the blending share, positive.
        seed: of the random numbers; each process draws its own and blends its own images.

    Raises:
        ValueError: When ``alpha`` is not positive.
    """

    def __init__(self, num_classes: int, alpha: float = 0.2, seed: int = 0) -> None:
        if alpha <= 0:
            raise ValueError(f"alpha must be positive, got {alpha}.")
        self.num_classes, self.alpha = num_classes, alpha
        self.seed = seed
        self.random = np.random.default_rng((seed, idist.get_rank(), 0))

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: trainer whose batches are dictionaries with an ``image`` and a ``label``.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self)

    def start_epoch(self, engine: Engine) -> None:
        """Seed by epoch, so that a resumed run blends as one that was not interrupted."""
        self.random = np.random.default_rng((self.seed, idist.get_rank(), engine.state.epoch))

    def __call__(self, engine: Engine) -> None:
        """Blend the batch that the engine has just fetched."""
        batch: dict = engine.state.batch  # type: ignore[assignment]
        image, label = batch[CommonKeys.IMAGE], batch[CommonKeys.LABEL]
        share = torch.as_tensor(self.random.beta(self.alpha, self.alpha, len(image)), dtype=image.dtype)
        other = torch.as_tensor(self.random.permutation(len(image)))
        targets = multi_hot(torch.as_tensor(label), self.num_classes)
        batch[CommonKeys.IMAGE] = _blend(image, other, share.to(image.device))
        batch[CommonKeys.LABEL] = _blend(targets, other, share.to(targets.device))


def _blend(values: torch.Tensor, other: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    share = share.view(-1, *[1] * (values.ndim - 1))
    return share * values + (1 - share) * values[other]
