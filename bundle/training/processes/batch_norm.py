# Copyright (c) The attention-imaging-bundle contributors
# SPDX-License-Identifier: Apache-2.0
"""Batch normalization over the images of all processes, on any device."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["SynchronizedBatchNorm2d"]


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class SynchronizedBatchNorm2d(nn.BatchNorm2d):
    """
    Batch normalization whose mean and variance in training are those of all processes' images together.

    PyTorch's ``SyncBatchNorm`` does the same on a GPU, faster, and refuses tensors of a CPU. In evaluation, and while
    its statistics are held fixed, it is a plain ``BatchNorm2d`` with the same state dict.
    """

    @classmethod
    def convert(cls, network: nn.Module) -> nn.Module:
        """
        Return ``network`` with every ``BatchNorm2d`` below it replaced, its parameters and buffers shared.

        Args:
            network: changed in place.
        """
        for name, child in network.named_children():
            if type(child) is nn.BatchNorm2d:
                new = cls(child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats)
                new.weight, new.bias = child.weight, child.bias
                for buffer, value in child.named_buffers():
                    setattr(new, buffer, value)
                setattr(network, name, new.train(child.training))
            else:
                cls.convert(child)
        return network

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: shape ``(B, C, H, W)``; ``B`` may differ between the processes.

        Returns:
            normalized, of the same shape.
        """
        if not self.training:
            return super().forward(input)
        input = input.as_subclass(torch.Tensor)  # MetaTensor looks at its metadata in every step below
        count = torch.tensor([input.numel() / input.shape[1]], dtype=input.dtype, device=input.device)
        sums = _SumOverProcesses.apply(torch.cat([input.sum(dim=(0, 2, 3)), count]))
        number = sums[-1].detach()
        mean = sums[:-1] / number
        centered = input - mean[:, None, None]
        # from the centered values: the difference of two large sums would lose digits
        squares = _SumOverProcesses.apply(centered.square().sum(dim=(0, 2, 3)))
        variance = squares / number
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), share)
            self.running_var.lerp_(variance.detach() * number / (number - 1), share)
        out = centered * (variance + self.eps).rsqrt()[:, None, None]
        return out * self.weight[:, None, None] + self.bias[:, None, None] if self.affine else out
