# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Join a group of processes, and train one network in all of them."""

from __future__ import annotations

import logging

import ignite.distributed as idist
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bundle.training.processes.batch_norm import SynchronizedBatchNorm2d

__all__ = [
    "default_backend",
    "default_device",
    "in_processes",
    "parallel_network",
    "refuse_processes",
    "share_of_batch",
    "start_processes",
]


def default_backend() -> str | None:
    """Return ``auto`` where torchrun started this process, and ``None`` for one process."""
    return "auto" if torch.distributed.is_torchelastic_launched() else None


def default_device(backend: str | None = None) -> torch.device:
    """
    Return the GPU of this process, or the CPU where there is none.

    Args:
        backend: of several processes; ``None`` for one.
    """
    if backend:
        return idist.device()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def in_processes() -> bool:
    """Return whether this process has joined others, or a group of its own."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def start_processes(backend: str | None) -> None:
    """
    Join the processes that torchrun or srun started; only the first goes on logging what is no error.

    Args:
        backend: ``gloo`` for CPUs, ``nccl`` for GPUs, ``auto`` for what this machine has; ``None`` for one process.

    Raises:
        ValueError: When the backend is unknown.
    """
    if backend is None:
        return
    if backend not in ("auto", "gloo", "nccl"):
        raise ValueError(f"backend must be auto, gloo or nccl, got '{backend}'.")
    if backend == "auto":
        backend = "nccl" if torch.cuda.is_available() else "gloo"
    idist.initialize(backend)
    if idist.get_rank() > 0:
        logging.disable(logging.WARNING)


def refuse_processes() -> None:
    """
    Do nothing in a run of one process: results are not brought together, and several would overwrite each other's.

    Raises:
        ValueError: When there are several processes.
    """
    if idist.get_world_size() > 1:
        raise ValueError(
            f"inference and evaluation write their results from one process, got {idist.get_world_size()}; "
            "start them without torchrun."
        )


def share_of_batch(batch_size: int) -> int:
    """
    Return how many images of a batch each process takes.

    Args:
        batch_size: of all processes together.

    Raises:
        ValueError: When the processes cannot share the batch equally, which the mean of their gradients needs.
    """
    processes = idist.get_world_size()
    if batch_size % processes:
        raise ValueError(f"batch_size must be a multiple of the {processes} processes, got {batch_size}.")
    return batch_size // processes


def parallel_network(network: nn.Module) -> nn.Module:
    """
    Return a network whose gradients are the mean over all processes, or ``network`` itself where there is but one
    process, or no gradient.

    Batch normalization sees the images of all processes. Buffers are not sent around: those statistics are equal
    everywhere already, and all other fitted state is computed from exact sums.

    Args:
        network: on its device; its batch normalizations are replaced in place.
    """
    if idist.get_world_size() == 1 or not any(p.requires_grad for p in network.parameters()):
        return network
    if idist.device().type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return DistributedDataParallel(network, device_ids=[idist.get_local_rank()], broadcast_buffers=False)
    return DistributedDataParallel(SynchronizedBatchNorm2d.convert(network), broadcast_buffers=False)
