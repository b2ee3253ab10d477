# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""What several processes need to act as one; with one process everything here leaves its input as it is."""

from bundle.lazy import public

__all__, __getattr__, __dir__ = public(
    __name__,
    batch_norm=["SynchronizedBatchNorm2d"],
    loader=["process_loader"],
    parallel=[
        "default_backend",
        "default_device",
        "parallel_network",
        "refuse_processes",
        "share_of_batch",
        "start_processes",
    ],
    reduction=["gathered", "same_everywhere", "shared_mean", "summed"],
)
