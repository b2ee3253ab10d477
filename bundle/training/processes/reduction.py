# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Exact sums and complete lists over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any, TypeVar

import ignite.distributed as idist
import torch
from torch import nn

__all__ = ["gathered", "same_everywhere", "shared_mean", "summed"]

T = TypeVar("T")
_ABSENT: Any = object()


def summed(*values: torch.Tensor | float) -> tuple[torch.Tensor, ...]:
    """
    Return each value added up over all processes, in float64 and without a gradient.

    A mean over all images is the sum of the processes' sums divided by the sum of their counts; a mean of the
    processes' means is not, as soon as one of them has fewer images.

    Args:
        values: tensors of a shape that is the same in every process, or numbers.

    Returns:
        tensors of those shapes, equal in every process.

    Example:
        >>> total, count = summed(torch.tensor([1.0, 2.0]), 4)
        >>> total / count
        tensor([0.2500, 0.5000], dtype=torch.float64)
    """
    wide = [torch.as_tensor(value).detach().to(torch.float64, copy=True) for value in values]
    if idist.get_world_size() == 1:
        return tuple(wide)
    device = idist.device()
    return tuple(torch.as_tensor(idist.all_reduce(value.to(device))).to(value.device) for value in wide)


def shared_mean(values: torch.Tensor) -> torch.Tensor:
    """
    Return this process's part of the mean over the values of all processes, with its gradient.

    The mean over the processes of what they return is the mean over all values, and so are its gradients, however
    unequal their numbers are.

    Args:
        values: of any shape, not empty in every process.

    Returns:
        a scalar, float32 at least; the plain mean where there is one process.
    """
    (number,) = summed(values.numel())
    wide = torch.promote_types(values.dtype, torch.float32)  # a sum of half precision could overflow
    return idist.get_world_size() * values.sum(dtype=wide) / number.item()


def gathered(values: Sequence[T]) -> list[T]:
    """
    Return the items of all processes in the order of the data, in every process.

    Process ``r`` of ``N`` is taken to hold every ``N``-th item from the ``r``-th on, as ``DistributedSampler`` deals
    them out.

    Args:
        values: this process's items; anything that can be pickled.
    """
    if idist.get_world_size() == 1:
        return list(values)
    parts: Any = idist.all_gather(list(values))
    return [value for value in chain(*zip_longest(*parts, fillvalue=_ABSENT)) if value is not _ABSENT]


def same_everywhere(module: nn.Module) -> None:
    """
    Give every process the parameters and buffers of the first.

    For what is computed in every process and might differ in the last digit between machines.

    Args:
        module: changed in place.
    """
    if idist.get_world_size() > 1:
        for tensor in module.state_dict().values():
            tensor.copy_(idist.broadcast(tensor.to(idist.device()), src=0))
