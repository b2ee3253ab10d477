# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What several processes need to act as one; with one process everything here leaves its input as it is."""

from bundle.distributed.batch_norm import SynchronizedBatchNorm2d
from bundle.distributed.parallel import parallel_network, refuse_processes, share_of_batch, start_processes
from bundle.distributed.reduction import gathered, same_everywhere, shared_mean, summed

__all__ = [
    "SynchronizedBatchNorm2d",
    "gathered",
    "parallel_network",
    "refuse_processes",
    "same_everywhere",
    "share_of_batch",
    "shared_mean",
    "start_processes",
    "summed",
]
