# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Start the patch descriptor of ADFA as a whitening of normal features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ignite.engine import Engine, Events

from bundle.anomaly.normals import Normals
from bundle.anomaly.patch_statistics import PatchStatistics
from bundle.training.processes.reduction import same_everywhere, summed

__all__ = ["DescriptorWhitening"]


class DescriptorWhitening:
    """
    Whiten a network's descriptor with its normal training images, once before the first epoch.

    Mean and covariance are those over the images of all processes.

    Attach it before the center bank, which holds features of the descriptor, and not at all for the paper's random
    start.

    Args:
        network: un-wrapped module with ``stacked_features(images) -> (B, D, h, w)`` and a ``descriptor`` that has
            ``start_whitened``.
        data_loader: each normal training image once; batches are dictionaries with an ``image``, ``(B, C, H, W)``.
        shrinkage: see :py:func:`bundle.anomaly.whitening.whitening_matrix`.
        within_positions: see :py:meth:`bundle.anomaly.patch_statistics.PatchStatistics.covariance`.
    """

    def __init__(
        self, network: Any, data_loader: Iterable, shrinkage: float = 0.1, within_positions: bool = True
    ) -> None:
        self.network, self.data_loader = network, data_loader
        self.shrinkage, self.within_positions = shrinkage, within_positions

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer; attach after what restores a checkpoint."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Whiten, unless a checkpoint brought a descriptor."""
        if engine.state.epoch > 0:
            return
        device = next(self.network.parameters()).device
        found = Normals(self.data_loader, device).moments(self.network.stacked_features)
        total, products, count = summed(found.total, found.products, found.count)
        found = PatchStatistics(int(count), total, products)
        self.network.descriptor.start_whitened(found.mean(), found.covariance(self.within_positions), self.shrinkage)
        same_everywhere(self.network.descriptor)
