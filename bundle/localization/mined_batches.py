# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Batches whose head comes from the samples to mine and whose rest comes from all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import ignite.distributed as idist
import torch
from torch.utils.data import Sampler

__all__ = ["MinedFirstBatchSampler"]


class MinedFirstBatchSampler(Sampler[list[int]]):
    """
    Indices of batches of ``N`` samples, the first ``n`` to be mined and the others to be preserved.

    For the split of Cai et al. (MICCAI 2018, https://arxiv.org/abs/1807.00958), Sec. 2.2, where the two come from
    different sets. An epoch goes once through the mined samples, each in one batch, and takes as many of the others as
    that needs, other ones in every epoch that :py:meth:`set_epoch` tells of. Each process of a distributed run yields
    its own share of the batches.

    Args:
        mined: whether each sample of the data set is to be mined.
        batch_size: ``N``.
        num_mined: ``n``, at most ``N``; as many as the loss mines.
        seed: of the order.

    Raises:
        ValueError: When ``num_mined`` is not in 1..``batch_size``, or there are not enough samples of either kind for
            one batch.
    """

    def __init__(self, mined: Sequence[bool], batch_size: int, num_mined: int, seed: int = 0) -> None:
        if not 1 <= num_mined <= batch_size:
            raise ValueError(f"num_mined must be in [1, {batch_size}], got {num_mined}.")
        flags = torch.tensor([bool(flag) for flag in mined])
        self.head, self.rest = flags.nonzero().flatten(), (~flags).nonzero().flatten()
        self.num_mined, self.num_rest, self.seed, self.epoch = num_mined, batch_size - num_mined, seed, 0
        if len(self.head) < num_mined or len(self.rest) < self.num_rest:
            raise ValueError(
                f"a batch needs {num_mined} samples to mine and {self.num_rest} others, "
                f"got {len(self.head)} and {len(self.rest)}."
            )

    def __len__(self) -> int:
        return len(self.head) // self.num_mined // idist.get_world_size()

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, as PyTorch's ``DistributedSampler`` has it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)  # the same in every process
        head = self.head[torch.randperm(len(self.head), generator=generator)].tolist()
        rest: list[int] = []
        batches = len(self) * idist.get_world_size()
        while len(rest) < batches * self.num_rest:
            rest += self.rest[torch.randperm(len(self.rest), generator=generator)].tolist()
        for i in range(idist.get_rank(), batches, idist.get_world_size()):
            mined = head[i * self.num_mined : (i + 1) * self.num_mined]
            yield mined + rest[i * self.num_rest : (i + 1) * self.num_rest]
