# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Start the patch descriptor of ADFA as a whitening of normal features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from bundle.distributed import same_everywhere, summed

__all__ = ["DescriptorWhitening"]


class DescriptorWhitening:
    """
    Whiten a network's descriptor with its normal training images, once before the first epoch.

    Mean and covariance are those over the images of all processes.

    Attach it before the center bank, which holds features of the descriptor, and not at all for the paper's random
    start.

    Args:
        network: un-wrapped module with ``stacked_features(images) -> (B, D, h, w)`` and a ``descriptor`` that has
            ``whiten``.
        data_loader: each normal training image once; batches are dictionaries with an ``image``, ``(B, C, H, W)``.
        shrinkage: see :py:func:`bundle.functional.whitening.whitening_matrix`.
    """

    def __init__(self, network: Any, data_loader: Iterable, shrinkage: float = 0.1) -> None:
        self.network, self.data_loader, self.shrinkage = network, data_loader, shrinkage

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer; attach after what restores a checkpoint."""
        engine.add_event_handler(Events.STARTED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Whiten, unless a checkpoint brought a descriptor."""
        if engine.state.epoch > 0:
            return
        count, total, products = 0, torch.zeros(()), torch.zeros(())
        for batch in self.data_loader:
            device = next(self.network.parameters()).device
            x = self.network.stacked_features(batch[CommonKeys.IMAGE].to(device)).transpose(0, 1).flatten(1).double()
            count, total, products = count + x.shape[1], total.to(x) + x.sum(dim=1), products.to(x) + x @ x.T
        total, products, number = summed(total, products, count)
        mean = total / number
        covariance = products / number - torch.outer(mean, mean)
        dtype = next(self.network.descriptor.parameters()).dtype
        self.network.descriptor.whiten(mean.to(dtype), covariance.to(dtype), self.shrinkage)
        same_everywhere(self.network.descriptor)
