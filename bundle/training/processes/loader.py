# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Batches of a data set, of which each process takes its part."""

from __future__ import annotations

from monai.data import DataLoader, DistributedSampler
from torch.utils.data import Dataset

from bundle.training.processes.parallel import in_processes, share_of_batch

__all__ = ["process_loader"]


def process_loader(
    dataset: Dataset, batch_size: int, shuffle: bool = False, seed: int = 0, num_workers: int = 0
) -> DataLoader:
    """
    Return MONAI's loader, in several processes with a part of the items for each.

    Args:
        dataset: the same in all processes.
        batch_size: of all processes together, see :py:func:`share_of_batch`.
        shuffle: draw the order anew each epoch; the parts are then of equal size, and up to one item less than the
            number of processes comes twice. Otherwise each item comes once.
        seed: of the order in several processes; one process takes PyTorch's.
        num_workers: that load beside each process.

    Raises:
        ValueError: When the processes cannot share a batch equally.

    Example:
        >>> [len(batch) for batch in process_loader([0.5] * 5, batch_size=2)]
        [2, 2, 1]
    """
    sampler = None
    if in_processes():
        sampler = DistributedSampler(dataset, even_divisible=shuffle, shuffle=shuffle, seed=seed)
    share = share_of_batch(batch_size)
    return DataLoader(dataset, num_workers, batch_size=share, shuffle=shuffle and sampler is None, sampler=sampler)
